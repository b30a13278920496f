"""Questions to solutions: rollouts in batches of similar length, with the text of answers and plans.

`roll_out` gives trajectories, `solve` their texts, `greedy_chains` the latents of the most probable ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from latentplan.encoding.processor import pad_left
from latentplan.encoding.unreadable import UnreadableTextError
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate
from latentplan.rollout.plan_decoding import Plan, decode_plans, written_plan
from latentplan.rollout.trajectories import Trajectories


@dataclass(frozen=True)
class RolledBatch:
    """The trajectories of one batch.

    Attributes:
        indices: of its questions in the whole set.
        trajectories: all generations of these questions.
        seconds: that generation took, the device having finished.
    """

    indices: list[int]
    trajectories: Trajectories
    seconds: float


@dataclass(frozen=True)
class Solution:
    """One trajectory as text.

    Attributes:
        completion: what was written after the latents, without eos.
        plan: the decoded steps (latent models with a decoder), the explicit steps (CoT), or None.
        num_latents: latent tokens used.
        num_tokens: latent tokens and answer tokens before eos.
        finished: whether eos was written.
    """

    completion: str
    plan: Plan | None
    num_latents: int
    num_tokens: int
    finished: bool


def question_row(model: LoadedModel, question: str) -> list[int]:
    """Returns a question's ids, with what tells a latent model to begin."""
    frame = [model.processor.start_latent] * model.reasoner.config.num_start_tokens
    return model.processor.question(question) + frame


def question_batch(model: LoadedModel, questions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns left-padded ids and mask `[questions, longest]` on the model's device.

    Raises:
        UnreadableTextError: the model cannot read a question.
    """
    return _batch(model, [question_row(model, question) for question in questions])


def _batch(model: LoadedModel, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = pad_left(rows, model.tokenizer.pad_token_id)
    return ids.to(model.reasoner.device), mask.to(model.reasoner.device)


def _question_rows(model: LoadedModel, questions: Sequence[str]) -> list[list[int]]:
    rows = []
    for number, question in enumerate(questions, start=1):
        try:
            rows.append(question_row(model, question))
        except UnreadableTextError as error:
            if len(questions) == 1:
                raise
            raise error.of(f"question {number} of {len(questions)}") from error
    return rows


def batches_by_length(questions: Sequence[str], batch_size: int) -> list[list[int]]:
    """Returns the indices of the questions in batches, the shortest first, to need little padding."""
    order = sorted(range(len(questions)), key=lambda index: (len(questions[index]), index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def roll_out(
    model: LoadedModel,
    questions: Sequence[str],
    sampling: Sampling,
    *,
    seed: int,
    num_generations: int = 1,
    batch_size: int = 128,
) -> Iterator[RolledBatch]:
    """Yields `num_generations` trajectories of each question, in batches of `batch_size` and of whole groups.

    A question's noise follows from `seed` and its index in `questions`. All questions are encoded before the
    first is answered.

    Raises:
        UnreadableTextError: the model cannot read a question; says its number.
    """
    rows = _question_rows(model, questions)
    for indices in batches_by_length(questions, max(1, batch_size // num_generations)):
        ids, mask = _batch(model, [rows[index] for index in indices])
        started = _now(ids.device)
        trajectories = generate(
            model.reasoner,
            ids,
            mask,
            torch.tensor(indices, device=ids.device),
            seed=seed,
            sampling=sampling,
            draws=num_generations,
        )
        yield RolledBatch(indices, trajectories, _now(ids.device) - started)


def read_solutions(model: LoadedModel, trajectories: Trajectories, with_plans: bool = True) -> list[Solution]:
    """Returns the trajectories as text, in their order."""
    config = model.reasoner.config
    completions = [
        text.strip()
        for text in model.tokenizer.batch_decode(trajectories.answer_ids, skip_special_tokens=True)
    ]
    plans: list[Plan | None] = [None] * len(completions)
    if with_plans and model.step_decoder is not None:
        by_chain = decode_plans(
            model.step_decoder, model.tokenizer, trajectories.latents, trajectories.slot_mask
        )
        plans = [plan for plan in by_chain for _ in range(trajectories.answers)]
    elif with_plans and config.written_steps:
        plans = [written_plan(text, config.step_separator, config.answer_marker) for text in completions]
    return [
        Solution(*parts)
        for parts in zip(
            completions,
            plans,
            trajectories.num_latents.tolist(),
            trajectories.num_tokens.tolist(),
            trajectories.finished.tolist(),
            strict=True,
        )
    ]


def solve(
    model: LoadedModel,
    questions: Sequence[str],
    sampling: Sampling,
    *,
    seed: int = 0,
    num_generations: int = 1,
    batch_size: int = 128,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[list[Solution]]:
    """Returns `num_generations` solutions of each question, in the order of the questions.

    Questions of similar length share a batch; a question's noise follows from its index and `seed`.

    Args:
        model: reasoner, decoder, tokenizer.
        questions: in words.
        sampling: temperatures and length.
        seed: of the noise.
        num_generations: solutions of each question.
        batch_size: questions in a batch.
        on_progress: called with the number of questions just solved.

    Raises:
        UnreadableTextError: the model cannot read a question; says its number.
    """
    solutions: list[list[Solution]] = [[] for _ in questions]
    for batch in roll_out(
        model,
        questions,
        sampling,
        seed=seed,
        num_generations=num_generations,
        batch_size=batch_size * num_generations,
    ):
        flat = read_solutions(model, batch.trajectories)
        for row, index in enumerate(batch.indices):
            solutions[index] = flat[row * num_generations : (row + 1) * num_generations]
        on_progress(len(batch.indices))
    return solutions


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class GreedyChains:
    """The latents of the most probable trajectory of each question, on the CPU.

    Attributes:
        indices: of the questions in the whole set, in the order of their length.
        latents: `[questions, slots, hidden]`.
        slot_mask: `[questions, slots]`, 1 where a slot is in use.
        plans: the decoded steps of each chain; None without a step decoder.
        solutions: the whole trajectories as text; empty for chains that were made otherwise.
    """

    indices: list[int]
    latents: torch.Tensor
    slot_mask: torch.Tensor
    plans: list[Plan | None]
    solutions: list[Solution] = field(default_factory=list)

    @classmethod
    def of(cls, batch: RolledBatch, solutions: Sequence[Solution]) -> GreedyChains:
        """Takes the chains of a greedy batch with one trajectory a question."""
        latents, slot_mask = batch.trajectories.latents.cpu(), batch.trajectories.slot_mask.cpu()
        plans = [solution.plan for solution in solutions]
        return cls(batch.indices, latents, slot_mask, plans, list(solutions))

    @classmethod
    def join(cls, parts: Sequence[GreedyChains]) -> GreedyChains:
        """Joins batches to one set, in their order."""
        return cls(
            indices=[index for part in parts for index in part.indices],
            latents=torch.cat([part.latents for part in parts]),
            slot_mask=torch.cat([part.slot_mask for part in parts]),
            plans=[plan for part in parts for plan in part.plans],
            solutions=[solution for part in parts for solution in part.solutions],
        )

    def select(self, rows: Sequence[int]) -> GreedyChains:
        """Returns some of the rows, in this order."""
        where = torch.tensor(list(rows), dtype=torch.long)
        return GreedyChains(
            [self.indices[row] for row in rows],
            self.latents[where],
            self.slot_mask[where],
            [self.plans[row] for row in rows],
            [self.solutions[row] for row in rows] if self.solutions else [],
        )

    def by_question(self, latents_per_step: int) -> list[torch.Tensor]:
        """Returns each question's steps in use, `[steps, latents_per_step, hidden]`, in their order."""
        chains = {
            index: latents[used.bool()].unflatten(0, (-1, latents_per_step))
            for index, latents, used in zip(self.indices, self.latents, self.slot_mask, strict=True)
        }
        return [chains[index] for index in sorted(chains)]


def greedy_chains(
    model: LoadedModel,
    questions: Sequence[str],
    *,
    batch_size: int = 128,
    max_new_tokens: int = 1,
    with_plans: bool = True,
) -> GreedyChains:
    """Computes the chain of the most probable trajectory of each question.

    Args:
        model: reasoner, decoder, tokenizer.
        questions: in words.
        batch_size: questions in a batch.
        max_new_tokens: text tokens of a solution at most; the chains alone need none.
        with_plans: whether to decode the plans.
    """
    sampling = Sampling.greedy(max_new_tokens)
    parts = [
        GreedyChains.of(batch, read_solutions(model, batch.trajectories, with_plans))
        for batch in roll_out(model, questions, sampling, seed=0, batch_size=batch_size)
    ]
    return GreedyChains.join(parts)


@contextmanager
def evaluation_mode(model: LoadedModel) -> Iterator[None]:
    """Switches dropout off, and the modules back to the mode that they were in, so a trainer can evaluate."""
    modules = [part for part in (model.reasoner, model.step_decoder) if part is not None]
    were_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, training in zip(modules, were_training, strict=True):
            module.train(training)
