"""Validation problems, and what is measured on them: sums and counts that add up over batches and processes.

Nothing here depends on how the problems are split: objectives are divided by the counts of the whole set, and
the noise of a problem follows from its index in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from latentplan.encoding.processor import Batch, EncodedProblem, ProblemProcessor
from latentplan.encoding.token_store import encode_problems
from latentplan.modeling import counter_rng
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.problems.decontamination import refuse_overlap
from latentplan.problems.minigsm import generate
from latentplan.problems.problem import Problem
from latentplan.problems.training_set import MINIGSM, DataArguments, load_training_problems, minigsm_preset
from latentplan.rewards import BUILT_IN
from latentplan.rewards.plan_graph import in_sentences
from latentplan.rollout.decoding_accuracy import teacher_share
from latentplan.rollout.solve import Solution, solve
from latentplan.training.configs import RunConfig
from latentplan.training.trainable_model import LatentModelForTraining

MAX_NEW_TOKENS = 128

Sums = dict[str, tuple[float, float]]
"""For each measure a sum and the count that divides it."""


@dataclass(frozen=True)
class ValidationSet:
    """Problems that are held out from training, and their token ids, in one order."""

    problems: Sequence[Problem]
    encoded: Sequence[EncodedProblem]

    def __len__(self) -> int:
        return len(self.problems)

    def part(self, process: int, processes: int) -> range:
        """Returns the indices of one of several processes; their numbers differ by one at most."""
        size = len(self)
        return range(size * process // processes, size * (process + 1) // processes)


def load_validation(
    config: RunConfig, data: DataArguments, processor: ProblemProcessor, trained_on: Sequence[Problem]
) -> ValidationSet | None:
    """The validation problems that a run's settings name; None where it is not to be evaluated.

    Raises:
        DataError: a file cannot be read.
        ValueError: no validation set is named, there are fewer problems than processes, or some of them are
            in the training data; names them.
    """
    if str(getattr(config.eval_strategy, "value", config.eval_strategy)) == "no":
        return None
    names = config.eval_dataset_name or [name for name in data.dataset_name if name == MINIGSM]
    if not names:
        raise ValueError(
            "eval_strategy asks for evaluations, but there is nothing to evaluate on: set eval_dataset_name"
        )
    sources = [data if name == MINIGSM else _source(name, config, data) for name in names]
    problems: list[Problem] = []
    for name, source in zip(names, sources, strict=True):
        problems += _generate(config, data) if name == MINIGSM else load_training_problems(source)[0]
    refuse_overlap(trained_on, {", ".join(names): problems})
    encoded, kept = encode_problems(problems, processor, data, sources)
    if len(kept) < config.world_size:
        raise ValueError(f"{config.world_size} processes need as many validation problems, got {len(kept)}")
    return ValidationSet(kept, encoded)


def _generate(config: RunConfig, data: DataArguments) -> list[Problem]:
    count = config.eval_dataset_size
    return list(generate(minigsm_preset(data), split="validation", count=count, seed=data.dataset_seed))


def _source(name: str, config: RunConfig, data: DataArguments) -> DataArguments:
    """How a validation set is read."""
    return replace(
        data,
        dataset_name=[name],
        dataset_train_split=config.eval_dataset_split,
        dataset_size=config.eval_dataset_size,
        dataset_streaming=False,
        exclude_benchmarks=[],
        held_out_benchmarks=[],
    )


def validation_batches(
    system: LatentModelForTraining,
    processor: ProblemProcessor,
    validation: ValidationSet,
    indices: range,
    *,
    stage: int,
    seed: int,
    batch_size: int,
) -> list[Batch]:
    """The problems at `indices`, laid out at a stage of the curriculum, with the same noise at every call."""
    config = system.reasoner.config
    batches = []
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        problems = [validation.encoded[index] for index in chosen]
        keys = counter_rng.derive(seed, counter_rng.Stream.VALIDATION, torch.tensor(list(chosen)))
        batches.append(system.method.batch(processor, problems, [stage] * len(problems), config, keys))
    return batches


def rollout_sums(
    model: LoadedModel,
    problems: Sequence[Problem],
    *,
    stage: int | None,
    batch_size: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[Sums, list[Solution]]:
    """What greedy rollouts of the problems show, and the rollouts.

    Args:
        model: in evaluation mode.
        problems: to be solved.
        stage: of the curriculum, up to which the decoder has learned to read; None for all of it.
        batch_size: problems at a time.
        max_new_tokens: of an answer.
        on_progress: called with the number of problems just solved.
    """
    questions = [problem.question for problem in problems]
    solved = solve(
        model,
        questions,
        Sampling.greedy(max_new_tokens),
        batch_size=batch_size,
        on_progress=on_progress,
    )
    solutions = [solution for (solution,) in solved]
    columns = {
        "prompts": questions,
        "completions": [solution.completion for solution in solutions],
        "answer": [problem.answer or None for problem in problems],
        "decoded_steps": [solution.plan for solution in solutions],
        "problems": problems,
    }
    in_words = in_sentences(step for problem in problems for step in problem.steps)
    coherence = "coherence_natural" if in_words else "coherence_strict"
    sums = {
        "accuracy": sum_of(BUILT_IN["accuracy"](**columns)),
        "tokens": sum_of([solution.num_tokens for solution in solutions]),
        "coherence": sum_of(BUILT_IN[coherence](**columns)),
        "reconstruction": (0.0, 0.0),
    }
    config = model.reasoner.config
    labelled = [problem for problem in problems if problem.steps]
    if config.has_latents:
        sums["latents"] = sum_of([solution.num_latents for solution in solutions])
    if config.latents_are_steps:
        steps = [min(len(problem.steps), config.max_latent_steps) for problem in labelled]
        sums["latents_needed"] = sum_of([config.latents_per_step * needed for needed in steps])
    if config.has_latents and model.step_decoder is not None and labelled and stage != 0:
        sums["reconstruction"] = teacher_share(model, labelled, batch_size=batch_size, stage=stage)
    return sums, solutions


def sum_of(values: Iterable[float | None]) -> tuple[float, float]:
    """Sum and number of the values that are not None."""
    found = [float(value) for value in values if value is not None]
    return sum(found), float(len(found))


def means_of(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """The mean of each measure that was measured at all."""
    return {name: total / count for name, (total, count) in sums.items() if count}
