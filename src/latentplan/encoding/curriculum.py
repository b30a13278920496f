"""The curriculum: which steps of a chain are latent at a stage, and the stage of an optimisation step."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass


def split_chain(num_steps: int, stage: int, max_latent_steps: int) -> tuple[list[range], range]:
    """Splits a chain of `num_steps` steps at curriculum stage `stage` (0: nothing is latent).

    The first `stage` steps are latent. From stage `max_latent_steps` on every step is latent, and the last
    latent step stands for the rest of a longer chain (ATP-Latent, arXiv:2601.21598, section 3).

    Returns:
        The latent steps, each as the range of chain steps that it stands for, and the range of steps that
        stay text.
    """
    num_latent = min(stage, max_latent_steps, num_steps)
    groups = [range(step, step + 1) for step in range(num_latent)]
    if stage >= max_latent_steps and 0 < num_latent < num_steps:
        groups[-1] = range(num_latent - 1, num_steps)
        return groups, range(num_steps, num_steps)
    return groups, range(num_latent, num_steps)


@dataclass(frozen=True)
class Curriculum:
    """The stages of a run: stage `stages[i]` lasts `steps[i]` optimisation steps.

    Raises:
        ValueError: the two lists differ in length, or a duration is not positive.
    """

    stages: tuple[int, ...]
    steps: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.stages) != len(self.steps) or not self.stages:
            raise ValueError(
                f"the curriculum needs one duration for each stage, got {len(self.stages)} stages "
                f"{list(self.stages)} and {len(self.steps)} durations {list(self.steps)}"
            )
        if min(self.steps) < 1 or min(self.stages) < 0:
            raise ValueError("curriculum stages must be 0 or more and last at least one optimisation step")

    @classmethod
    def constant(cls, stage: int, steps: int) -> Curriculum:
        """Returns a curriculum of one stage."""
        return cls((stage,), (steps,))

    @property
    def total_steps(self) -> int:
        """The number of optimisation steps of the whole run."""
        return sum(self.steps)

    @property
    def starts(self) -> list[int]:
        """The optimisation step at which each stage begins."""
        return [sum(self.steps[:index]) for index in range(len(self.steps))]

    def phase(self, step: int) -> int:
        """Returns the index into `stages` of optimisation step `step` (from 0); beyond the end, the last."""
        return bisect_right(self.starts, step) - 1

    def stage(self, step: int) -> int:
        """Returns the curriculum stage of optimisation step `step`."""
        return self.stages[self.phase(step)]
