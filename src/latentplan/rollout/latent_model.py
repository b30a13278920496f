"""`LatentModel`: a trained model as a notebook uses it: ask, sample, look inside, edit, resume, score.

import latentplan
model = latentplan.load("runs/quickstart/atp_latent_rl")
trace = model.trace("a dial shows 7 . first add 3 . reading ?")
print(trace)
print(model.edit(trace, step=1, value=0.0).resume())
"""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from latentplan.modeling.loading import LoadedModel, load_model
from latentplan.modeling.sampling import Sampling
from latentplan.problems.answers import extract_answer
from latentplan.problems.problem import Problem
from latentplan.rollout.decoded_text import Decoded, Piece, decode_steps, next_words, text_of
from latentplan.rollout.edits import replaced
from latentplan.rollout.logprobs import score
from latentplan.rollout.solve import RolledBatch, Solution, question_batch, read_solutions, roll_out
from latentplan.rollout.trace import LatentStep, Token, trace
from latentplan.rollout.trajectories import Trajectories


@dataclass(frozen=True)
class Answer:
    """What a model says to a question.

    Attributes:
        question: in words.
        answer: what it answers; empty where the text has none.
        plan: the decoded steps of its latents, or the steps that it wrote; None where there are none to read.
        completion: all text after the latents.
        num_latents: latents used.
        num_tokens: latents, and text tokens before the end.
        finished: whether the text came to its end.
    """

    question: str
    answer: str
    plan: list[str] | None
    completion: str
    num_latents: int
    num_tokens: int
    finished: bool

    def __str__(self) -> str:
        plan = "" if self.plan is None else " -> ".join(self.plan) + " -> "
        return f"{plan}{self.answer}  ({self.num_tokens} tokens, {self.num_latents} of them latent)"

    def _repr_html_(self) -> str:
        steps = "".join(f"<li><code>{html.escape(step)}</code></li>" for step in self.plan or [])
        return (
            f"<p>{html.escape(self.question)}</p><ol>{steps}</ol><p><b>{html.escape(self.answer)}</b> "
            f"({self.num_tokens} tokens, {self.num_latents} of them latent)</p>"
        )


@dataclass(frozen=True)
class Rollout:
    """Samples of some questions.

    Attributes:
        answers: of each question, its samples.
        batches: the trajectories (latents, log-probabilities, token ids), with the questions of each batch.
    """

    answers: list[list[Answer]]
    batches: list[RolledBatch]

    @property
    def trajectories(self) -> Trajectories:
        """The trajectories, where there is one batch. Raises ValueError where there are several."""
        if len(self.batches) != 1:
            raise ValueError(f"there are {len(self.batches)} batches of trajectories: read `batches`")
        return self.batches[0].trajectories


@dataclass(frozen=True)
class TracedStep:
    """One latent step of a trace.

    Attributes:
        latents: `[latents_per_step, hidden]`.
        decoded: what the step decoder reads in them, with probabilities; None without a step decoder.
        next_words: the language model's own most probable tokens at each latent.
        sigma: `[latents_per_step]`, root mean square of σ; None for deterministic latents.
        stop: the probability that the chain would have stopped here; None without a stop head.
        given: whether the latents came from outside.
    """

    latents: torch.Tensor
    decoded: Decoded | None
    next_words: list[list[Piece]]
    sigma: torch.Tensor | None
    stop: float | None
    given: bool

    def __str__(self) -> str:
        stop = "" if self.stop is None else f"  stop {self.stop:.3f}"
        given = "  given" if self.given else ""
        if self.decoded is not None:
            return f"{_one_line(self.decoded.text)}  p {self.decoded.probability:.3f}{stop}{given}"
        words = " | ".join(" ".join(piece.text.strip() for piece in top) for top in self.next_words)
        return f"[{words}]{stop}{given}"


@dataclass(frozen=True)
class Trace:
    """The most probable trajectory of one question, step by step.

    Attributes:
        question: in words.
        steps: the latent steps in use.
        tokens: what was written after them, with probabilities.
        answer: what the text answers, with its plan.
    """

    question: str
    steps: list[TracedStep]
    tokens: list[Token]
    answer: Answer

    def __str__(self) -> str:
        lines = [f"{number}. {step}" for number, step in enumerate(self.steps, start=1)]
        return "\n".join([self.question, *lines, f"=> {_one_line(self.answer.completion)}"])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@dataclass(frozen=True)
class Edit:
    """A trace with one step changed; the steps after it have not been regenerated yet."""

    model: LatentModel
    question: str
    latents: torch.Tensor

    def resume(self, max_new_tokens: int = 128) -> Trace:
        """Lets the model regenerate the steps after the edited one, and answer."""
        return self.model.trace(self.question, max_new_tokens=max_new_tokens, given=self.latents)


@dataclass(frozen=True)
class LogProb:
    """Log-probabilities in nats.

    Attributes:
        latents: `[slots]`, of each latent; 0 for deterministic ones.
        answer: `[tokens]`, of each token of the answer, its end included.
    """

    latents: torch.Tensor
    answer: torch.Tensor

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self.latents.sum() + self.answer.sum())


class LatentModel:
    """A trained model, ready to be asked; one string is one question.

    Args:
        loaded: reasoner, step decoder, tokenizer and processor.
    """

    def __init__(self, loaded: LoadedModel):
        self.loaded = loaded

    @property
    def config(self) -> Any:
        """The reasoner's configuration."""
        return self.loaded.reasoner.config

    def __repr__(self) -> str:
        size = sum(each.numel() for each in self.loaded.reasoner.parameters())
        return f"LatentModel({self.config.method}, {size:,} parameters, on {self.loaded.reasoner.device})"

    def ask(self, question: str, *, max_new_tokens: int = 128) -> Answer:
        """Returns the most probable answer to a question."""
        sampling = Sampling.greedy(max_new_tokens)
        (batch,) = roll_out(self.loaded, [question], sampling, seed=0)
        return self._answers([question], batch)[0]

    def rollout(
        self,
        questions: str | Sequence[str],
        n: int = 8,
        *,
        temperature: float = 1.0,
        latent_temperature: float | None = None,
        max_new_tokens: int = 128,
        seed: int = 0,
        batch_size: int = 128,
    ) -> Rollout:
        """Samples `n` trajectories of each question.

        Args:
            questions: one or several.
            n: samples of each.
            temperature: of tokens and stops.
            latent_temperature: scale of σ; as `temperature` where it is None.
            max_new_tokens: text tokens at most.
            seed: of the noise.
            batch_size: trajectories at a time.
        """
        requested = [questions] if isinstance(questions, str) else list(questions)
        latent = temperature if latent_temperature is None else latent_temperature
        sampling = Sampling(temperature, latent, max_new_tokens)
        batches = list(
            roll_out(self.loaded, requested, sampling, seed=seed, num_generations=n, batch_size=batch_size)
        )
        answers: list[list[Answer]] = [[] for _ in requested]
        for batch in batches:
            found = self._answers([requested[index] for index in batch.indices for _ in range(n)], batch)
            for position, index in enumerate(batch.indices):
                answers[index] = found[position * n : (position + 1) * n]
        return Rollout(answers, batches)

    def trace(self, question: str, *, max_new_tokens: int = 128, given: torch.Tensor | None = None) -> Trace:
        """Returns the most probable trajectory with everything that can be seen on the way.

        Args:
            question: in words.
            max_new_tokens: text tokens at most.
            given: `[steps, latents_per_step, hidden]`, latents of the first steps, whatever they are.
        """
        steps: list[TracedStep] = []
        tokens: list[Token] = []
        for seen in trace(self.loaded, question, max_new_tokens=max_new_tokens, given=given):
            if isinstance(seen, Token):
                tokens.append(seen)
            elif not seen.stopped:
                steps.append(self._traced(seen))
        words = [token.id for token in tokens if not token.last]
        completion = text_of(self.loaded.tokenizer, words).strip()
        plan = [step.decoded.text for step in steps if step.decoded is not None]
        num_latents = sum(len(step.latents) for step in steps)
        answer = Answer(
            question=question,
            answer=extract_answer(completion) or "",
            plan=plan if self.loaded.step_decoder is not None else None,
            completion=completion,
            num_latents=num_latents,
            num_tokens=num_latents + len(words),
            finished=bool(tokens) and tokens[-1].last,
        )
        return Trace(question, steps, tokens, answer)

    def edit(self, traced: Trace, step: int, value: torch.Tensor | TracedStep | float) -> Edit:
        """Replaces the latents of one step; `resume` regenerates what follows.

        Args:
            traced: a trace of this model.
            step: number of the step, from 1.
            value: `[latents_per_step, hidden]`, another step whose latents are taken, or one number for all
                dimensions.

        Raises:
            ValueError: there is no such step, or the value has another shape.
        """
        if not 1 <= step <= len(traced.steps):
            raise ValueError(
                f"step must be from 1 to {len(traced.steps)}, the steps of this trace, got {step}"
            )
        latents = torch.stack([each.latents for each in traced.steps[:step]])
        new = value.latents if isinstance(value, TracedStep) else torch.as_tensor(value, dtype=latents.dtype)
        if new.dim() and new.shape != latents[-1].shape:
            raise ValueError(f"value must have the shape {tuple(latents[-1].shape)}, got {tuple(new.shape)}")
        edited = torch.arange(step).unsqueeze(1) == step - 1
        return Edit(self, traced.question, replaced(latents, new, edited))

    @torch.no_grad()
    def log_prob(self, question: str, latents: torch.Tensor | Trace | None, answer: str) -> LogProb:
        """Scores latents and an answer that follows them.

        Args:
            question: in words.
            latents: `[steps, latents_per_step, hidden]`, a trace whose latents are taken, or None for none.
            answer: in words, without its marker.
        """
        ids, mask = question_batch(self.loaded, [question])
        device, config = ids.device, self.config
        if isinstance(latents, Trace):
            latents = torch.stack([step.latents for step in latents.steps]) if latents.steps else None
        size = config.latents_per_step
        flat = torch.zeros(0, config.hidden_size) if latents is None else latents.flatten(0, 1)
        flat = flat.to(device).float().unsqueeze(0)
        slots = torch.ones(1, flat.shape[1], dtype=torch.long, device=device)
        steps = slots.new_zeros(1, flat.shape[1] // size if config.has_latents else 0)
        written = torch.tensor([self.loaded.processor(Problem(question, (), answer)).answer], device=device)
        trajectories = Trajectories(
            question_ids=ids,
            question_mask=mask,
            chain_keys=torch.zeros(1, dtype=torch.long, device=device),
            latents=flat,
            slot_mask=slots,
            stop_mask=steps,
            stops=steps,
            latent_log_probs=torch.zeros_like(slots, dtype=torch.float32),
            stop_log_probs=steps.float(),
            answer_ids=written,
            answer_mask=torch.ones_like(written),
            answer_log_probs=torch.zeros_like(written, dtype=torch.float32),
            finished=torch.ones(1, dtype=torch.bool, device=device),
        )
        scores = score(self.loaded.reasoner, trajectories, Sampling())
        return LogProb(scores.latents[0], scores.answers[0])

    def _answers(self, questions: Sequence[str], batch: RolledBatch) -> list[Answer]:
        solutions = read_solutions(self.loaded, batch.trajectories)
        return [_answer(question, each) for question, each in zip(questions, solutions, strict=True)]

    def _traced(self, step: LatentStep) -> TracedStep:
        decoder, decoded = self.loaded.step_decoder, None
        if decoder is not None:
            (decoded,) = decode_steps(decoder, self.loaded.tokenizer, step.latents.unsqueeze(0))
        words = next_words(self.loaded, step.hidden)
        return TracedStep(step.latents, decoded, words, step.sigma, step.stop, step.given)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _answer(question: str, solution: Solution) -> Answer:
    return Answer(
        question=question,
        answer=extract_answer(solution.completion) or "",
        plan=solution.plan,
        completion=solution.completion,
        num_latents=solution.num_latents,
        num_tokens=solution.num_tokens,
        finished=solution.finished,
    )


def load(
    folder: str | os.PathLike, *, device: str | torch.device | None = None, trust_remote_code: bool = False
) -> LatentModel:
    """Loads a trained model from a run or model folder.

    Args:
        folder: of the run or the model.
        device: such as cuda:1; the GPU by default, if there is one.
        trust_remote_code: whether code may run that the folder names.

    Raises:
        DamagedModelError: a file of the folder is missing or damaged.
        FileNotFoundError: the folder holds no latentplan model.
        UntrustedCodeError: the folder names code, and is not trusted.
    """
    loaded = load_model(folder, trust_remote_code)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    for part in (loaded.reasoner, loaded.step_decoder):
        if part is not None:
            part.to(target)  # type: ignore[arg-type]
    return LatentModel(loaded)
