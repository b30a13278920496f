"""How far RL has moved the latents from where it found them, in units of their σ at the start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rollout.engine import generate
from latentplan.rollout.logprobs import score
from latentplan.rollout.solve import question_batch
from latentplan.rollout.trajectories import Trajectories

STARTING_LATENTS = "starting_latents.safetensors"


class Drift:
    """The greedy latents of some problems at the start, kept in a file so that a resumed run knows them.

    Args:
        file: in the run directory.
        problems: a few; the same ones whenever the run goes on.
    """

    def __init__(self, file: Path, problems: Sequence[Problem]):
        self.file, self.problems = file, problems

    @torch.no_grad()
    def start(self, model: LoadedModel, writes: bool) -> None:
        """Keeps where the latents are now."""
        trajectories = self._greedy(model)
        chain = score(model.reasoner, trajectories, Sampling.greedy(1)).chain
        if chain.log_variance is None or not writes:
            return
        kept = {
            "latents": trajectories.latents,
            "slot_mask": trajectories.slot_mask,
            "mean": chain.mean,
            "sigma": (0.5 * chain.log_variance).exp(),
        }
        staged = self.file.with_suffix(".part")
        save_file({name: value.float().cpu().contiguous() for name, value in kept.items()}, staged)
        staged.replace(self.file)

    @torch.no_grad()
    def measure(self, model: LoadedModel) -> float | None:
        """√ of the mean, over slots in use and dimensions, of ((μ − μ_start) / σ_start)².

        Both policies read the latents of the start, so that one slot's move is not counted again in those
        after it. None where nothing was kept.
        """
        if not self.file.exists():
            return None
        kept = {name: value.to(model.reasoner.device) for name, value in load_file(self.file).items()}
        now = self._greedy(model, kept["latents"], kept["slot_mask"].long())
        mean = score(model.reasoner, now, Sampling.greedy(1)).chain.mean
        distance = ((mean.float() - kept["mean"]) / kept["sigma"]).square().mean(dim=-1)
        used = kept["slot_mask"]
        return float(((distance * used).sum() / used.sum().clamp(min=1)).sqrt())

    def _greedy(
        self,
        model: LoadedModel,
        latents: torch.Tensor | None = None,
        slot_mask: torch.Tensor | None = None,
    ) -> Trajectories:
        """Greedy trajectories of the problems; with `latents`, these in the place of the model's own."""
        ids, mask = question_batch(model, [problem.question for problem in self.problems])
        places = torch.arange(len(self.problems), device=ids.device)
        found = generate(model.reasoner, ids, mask, places, seed=0, sampling=Sampling.greedy(1))
        if latents is not None and slot_mask is not None:
            found.latents, found.slot_mask = latents, slot_mask
        return found
