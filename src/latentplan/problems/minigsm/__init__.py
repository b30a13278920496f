"""minigsm: endless, seeded word problems that know every valid chain of their own reasoning."""

from latentplan.problems.minigsm.generate import SpaceExhaustedError, generate
from latentplan.problems.minigsm.presets import PRESETS, MinigsmConfig

__all__ = ["PRESETS", "MinigsmConfig", "SpaceExhaustedError", "generate"]
