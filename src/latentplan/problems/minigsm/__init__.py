"""minigsm: endless, seeded word problems that know every valid chain of their own reasoning."""

from latentplan.problems.minigsm.config import PRESETS, MinigsmConfig
from latentplan.problems.minigsm.generate import SpaceExhaustedError, generate

__all__ = ["PRESETS", "MinigsmConfig", "SpaceExhaustedError", "generate"]
