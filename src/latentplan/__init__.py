"""latentplan: language models that reason in a few continuous latent tokens.

The road through the package: `problems` -> `encoding` -> `modeling` -> `methods` / `rollout` / `rewards` ->
`training` -> `evaluation` -> `serving`, with `cli` and `recipes` on top. What is listed in `__all__` is the
public interface; each name is imported when it is first used, so that `import latentplan` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from latentplan.common.renamed_modules import accept_old_names

if TYPE_CHECKING:
    from latentplan.evaluation.harness import evaluate
    from latentplan.methods.base import Method, get_method
    from latentplan.modeling.sampling import Sampling
    from latentplan.modeling.thinking import ThinkingProcess
    from latentplan.problems.problem import Problem
    from latentplan.rollout.latent_model import LatentModel, load
    from latentplan.rollout.trajectories import Trajectories
    from latentplan.training.grpo_trainer import GRPOTrainer
    from latentplan.training.sft_trainer import SFTTrainer

__version__ = "0.1.0"
_OWNERS = {
    "GRPOTrainer": "latentplan.training.grpo_trainer",
    "LatentModel": "latentplan.rollout.latent_model",
    "Method": "latentplan.methods.base",
    "Problem": "latentplan.problems.problem",
    "SFTTrainer": "latentplan.training.sft_trainer",
    "Sampling": "latentplan.modeling.sampling",
    "ThinkingProcess": "latentplan.modeling.thinking",
    "Trajectories": "latentplan.rollout.trajectories",
    "evaluate": "latentplan.evaluation.harness",
    "get_method": "latentplan.methods.base",
    "load": "latentplan.rollout.latent_model",
}
__all__ = [
    "GRPOTrainer",
    "LatentModel",
    "Method",
    "Problem",
    "SFTTrainer",
    "Sampling",
    "ThinkingProcess",
    "Trajectories",
    "evaluate",
    "get_method",
    "load",
]

accept_old_names()


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _OWNERS:
        raise AttributeError(f"module 'latentplan' has no attribute {name!r}")
    return getattr(import_module(_OWNERS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_OWNERS])
