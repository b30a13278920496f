"""From a model and problems to a `LatentTable`: rolled out once, scored once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from latentplan.evaluation.latent_table import LatentRow, LatentTable, SolvedProblem, StopRow
from latentplan.evaluation.metrics import predictions_of
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.problems.problem import Problem
from latentplan.rollout.decoding_accuracy import latent_steps
from latentplan.rollout.logprobs import score
from latentplan.rollout.plan_decoding import Plan
from latentplan.rollout.solve import RolledBatch, evaluation_mode, read_solutions, roll_out


def collect_latents(
    model: LoadedModel,
    problems: Sequence[Problem],
    *,
    sampling: Sampling,
    seed: int = 0,
    batch_size: int = 128,
    on_progress: Callable[[int], None] = lambda done: None,
) -> LatentTable:
    """Returns the latent steps of one trajectory of each problem.

    Args:
        model: a model with latents.
        problems: what to solve.
        sampling: temperatures and length; greedy gives the means.
        seed: of the noise.
        batch_size: trajectories at a time.
        on_progress: called with the number of problems just solved.

    Raises:
        ValueError: the model has no latents, or there are no problems.
    """
    if not model.reasoner.config.has_latents:
        raise ValueError(f"{model.reasoner.config.method} has no latents")
    if not problems:
        raise ValueError("there are no problems")
    collector = _Collector(model, problems)
    with evaluation_mode(model):
        questions = [problem.question for problem in problems]
        for batch in roll_out(model, questions, sampling, seed=seed, batch_size=batch_size):
            collector.add(batch, sampling)
            on_progress(len(batch.indices))
    return collector.table()


class _Collector:
    """Grows a table batch by batch."""

    def __init__(self, model: LoadedModel, problems: Sequence[Problem]):
        self.model, self.problems = model, problems
        self.rows: list[LatentRow] = []
        self.stops: list[StopRow] = []
        self.solved: dict[int, SolvedProblem] = {}
        self.vectors: list[torch.Tensor] = []
        self.means: list[torch.Tensor] = []

    @torch.no_grad()
    def add(self, batch: RolledBatch, sampling: Sampling) -> None:
        """Adds the rows of one batch with one trajectory for each question."""
        scores = score(self.model.reasoner, batch.trajectories, sampling)
        size = self.model.reasoner.config.latents_per_step
        used = batch.trajectories.slot_mask[:, ::size].bool()
        self.vectors.append(_by_step(batch.trajectories.latents, size)[used].cpu())
        self.means.append(_by_step(scores.chain.mean, size)[used].cpu())
        sigma = None
        if scores.chain.log_variance is not None:
            sigma = torch.exp(0.5 * scores.chain.log_variance).unflatten(1, (-1, size)).mean(dim=(2, 3))
        solutions = read_solutions(self.model, batch.trajectories)
        for row, index in enumerate(batch.indices):
            problem = self.problems[index]
            found = predictions_of(index, problem, [solutions[row]])[0]
            plan = found.plan if self.model.step_decoder is not None else None
            self.solved[index] = SolvedProblem(
                problem.question,
                problem.answer,
                found.answer,
                found.correct,
                plan,
                problem.modulus,
                problem.answer_kind,
            )
            texts = self._labelled(problem) if plan is None else plan
            for step in range(int(used[row].sum())):
                self.rows.append(
                    LatentRow(
                        problem=index,
                        step=step + 1,
                        text=texts[step] if step < len(texts) else None,
                        sigma=None if sigma is None else float(sigma[row, step]),
                        correct=found.correct,
                    )
                )
        if scores.stop_logits is not None:
            probabilities = scores.stop_logits.float().softmax(dim=-1)[..., 1]
            self._add_stops(batch, probabilities)

    def _add_stops(self, batch: RolledBatch, probabilities: torch.Tensor) -> None:
        most = self.model.reasoner.config.max_latent_steps
        for row, step in batch.trajectories.stop_mask.nonzero().tolist():
            index = batch.indices[row]
            needed = min(len(self.problems[index].steps), most)
            self.stops.append(StopRow(index, step + 1, float(probabilities[row, step]), needed))

    def _labelled(self, problem: Problem) -> Plan:
        """Returns what each latent step stands for by the labels; nothing where latents stand for tokens."""
        config = self.model.reasoner.config
        if not config.latents_are_steps:
            return []
        return latent_steps(problem.steps, config.max_latent_steps, config.step_separator)

    def table(self) -> LatentTable:
        return LatentTable(
            rows=self.rows,
            vectors=_array(self.vectors),
            means=_array(self.means),
            stops=self.stops,
            problems=[self.solved[index] for index in range(len(self.problems))],
            decoded=self.model.step_decoder is not None,
        )


def _by_step(latents: torch.Tensor, size: int) -> torch.Tensor:
    """Returns `[chains, slots, hidden]` to `[chains, steps, size · hidden]`."""
    return latents.unflatten(1, (-1, size)).flatten(2)


def _array(parts: Sequence[torch.Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).float().numpy()
