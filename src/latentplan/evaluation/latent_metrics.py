"""What accuracy does not show: do the latents cause the answer, can they be read, are there enough of them?

*Latent use*: the greedy latents of each question are put back, set to zero, replaced by noise of the same
norm, or by those of another question. A model whose accuracy stays is a silent failure: it does not use its
latents.

*Reconstruction*: what the step decoder reads, teacher-encoded and free-running, as
`rollout.decoding_accuracy` has it. A step is *exact* when its text is the label's as the tokenizer writes it,
and has the right *result* when its last equation has the result of the label's last equation; chains without
equations are left out of the results.

*Stop calibration*: latent steps used against those needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from latentplan.evaluation.metrics import are_correct
from latentplan.evaluation.results import LatentUse, Reconstruction, StopCalibration
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.problem import Problem
from latentplan.rewards.plan_graph import result_of
from latentplan.rollout.decoding_accuracy import (
    RELIABLE_RECONSTRUCTION,
    free_running,
    teacher_encoded,
    text_of,
)
from latentplan.rollout.interventions import (
    Intervention,
    completions_with,
    intact,
    of_another_question,
    same_norm_noise,
    zero,
)
from latentplan.rollout.solve import GreedyChains


def measure_latent_use(
    model: LoadedModel,
    problems: Sequence[Problem],
    chains: GreedyChains,
    *,
    seed: int,
    max_new_tokens: int,
    batch_size: int,
) -> LatentUse:
    """Measures greedy accuracy after each intervention; `other_question` is None with a single problem."""
    answered = [problems[index] for index in chains.indices]

    def accuracy(intervention: Intervention) -> float:
        completions = completions_with(
            model,
            problems,
            chains,
            intervention,
            seed=seed,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
        return sum(are_correct(completions, answered)) / len(completions)

    return LatentUse(
        intact=accuracy(intact),
        zero=accuracy(zero),
        noise=accuracy(same_norm_noise),
        other_question=accuracy(of_another_question) if len(chains.indices) > 1 else None,
    )


def measure_reconstruction(
    model: LoadedModel, problems: Sequence[Problem], chains: GreedyChains, *, batch_size: int
) -> Reconstruction:
    """Returns both reconstructions over all problems that have a labelled chain."""
    labelled = [problem for problem in problems if problem.steps]
    teacher = teacher_encoded(model, labelled, batch_size=batch_size)
    free = [
        (plan, problems[index])
        for index, plan in zip(chains.indices, chains.plans, strict=True)
        if plan is not None and problems[index].steps
    ]
    own = free_running(model, [problem for _, problem in free], [plan for plan, _ in free])
    return Reconstruction(
        teacher_exact=teacher.share(text_of).value,
        teacher_result=teacher.share(result_of).value,
        free_exact=own.share(text_of).value,
        free_result=own.share(result_of).value,
    )


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
    """Returns every diagnostic that applies to the model, from its greedy chains (None for one without
    latents).
    """
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
    """Compares latent steps used with min(labelled steps, K), over the problems with a labelled chain.

    None without a stop head, without labelled chains, or where latents stand for tokens.
    """
    config = model.reasoner.config
    steps = torch.tensor([len(problems[index].steps) for index in chains.indices])
    labelled = steps > 0
    counts_steps = model.reasoner.stop_head is not None and config.latents_are_steps
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
    """Returns a warning for each kind of reconstruction below `RELIABLE_RECONSTRUCTION`."""
    if reconstruction is None:
        return []
    kinds = {"teacher-encoded": reconstruction.teacher_exact, "free-running": reconstruction.free_exact}
    return [
        f"{kind} reconstruction is {share:.1%}, below {RELIABLE_RECONSTRUCTION:.0%}: "
        "coherence, as a score and as a reward, is unreliable"
        for kind, share in kinds.items()
        if share is not None and share < RELIABLE_RECONSTRUCTION
    ]
