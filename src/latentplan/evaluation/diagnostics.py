"""What accuracy does not show: can the plans be read, do the latents matter, are there as many as needed?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from latentplan.evaluation.latent_use import measure_latent_use
from latentplan.evaluation.reconstruction import measure_reconstruction
from latentplan.evaluation.results import LatentUse, Reconstruction, StopCalibration
from latentplan.evaluation.rollouts import GreedyChains
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rollout.decoding_accuracy import RELIABLE_RECONSTRUCTION


@dataclass(frozen=True)
class Diagnostics:
    """What was found; None where the model has no such part."""

    reconstruction: Reconstruction | None = None
    latent_use: LatentUse | None = None
    stop: StopCalibration | None = None

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers has to know."""
        return reconstruction_warnings(self.reconstruction)


def diagnose(
    model: LoadedModel,
    problems: Sequence[Problem],
    chains: GreedyChains | None,
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
    latent_use: bool,
) -> Diagnostics:
    """Every diagnostic that applies to the model, from its greedy chains (None for one without latents)."""
    if chains is None:
        return Diagnostics()
    reconstruction = use = None
    if model.step_decoder is not None:
        reconstruction = measure_reconstruction(model, problems, chains, batch_size=batch_size)
    if latent_use:
        use = measure_latent_use(
            model, problems, chains, seed=seed, max_new_tokens=max_new_tokens, batch_size=batch_size
        )
    return Diagnostics(reconstruction, use, stop_calibration(model, problems, chains))


def stop_calibration(
    model: LoadedModel, problems: Sequence[Problem], chains: GreedyChains
) -> StopCalibration | None:
    """Latent steps used against min(labelled steps, K), over the problems with a labelled chain.

    None without a stop head, without labelled chains, or where latents stand for tokens.
    """
    config = model.reasoner.config
    steps = torch.tensor([len(problems[place].steps) for place in chains.places])
    labelled = steps > 0
    counts_steps = model.reasoner.stop_head is not None and config.compression_factor is None
    if not counts_steps or not bool(labelled.any()):
        return None
    needed = steps[labelled].clamp(max=config.max_latent_steps)
    predicted = chains.slot_mask[labelled].sum(dim=1) // config.latents_per_step
    return StopCalibration(
        exact=(predicted == needed).double().mean().item(),
        mean_predicted=predicted.double().mean().item(),
        mean_needed=needed.double().mean().item(),
    )


def reconstruction_warnings(reconstruction: Reconstruction | None) -> list[str]:
    """A warning for each kind of reconstruction below `RELIABLE_RECONSTRUCTION`."""
    if reconstruction is None:
        return []
    kinds = {"teacher-encoded": reconstruction.teacher_exact, "free-running": reconstruction.free_exact}
    return [
        f"{kind} reconstruction is {share:.1%}, below {RELIABLE_RECONSTRUCTION:.0%}: "
        "coherence, as a score and as a reward, is unreliable"
        for kind, share in kinds.items()
        if share is not None and share < RELIABLE_RECONSTRUCTION
    ]
