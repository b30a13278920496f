"""Solutions as OpenAI's clients read them: whole answers, and the chunks of a stream."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from latentplan import __version__
from latentplan.problems.answers import extract_answer
from latentplan.rewards.plan_graph import equations_of
from latentplan.rewards.plan_rewards import strict_coherence
from latentplan.rewards.sentence_coherence import natural_coherence
from latentplan.serving.model_worker import Finished


def usage(prompt_tokens: int, finished: Iterable[Finished]) -> dict[str, Any]:
    """Counts tokens of questions and answers; latents are the reasoning tokens."""
    solutions = [done.solution for done in finished]
    completion = sum(solution.num_tokens for solution in solutions)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
        "completion_tokens_details": {
            "reasoning_tokens": sum(solution.num_latents for solution in solutions)
        },
    }


def extension(done: Finished, question: str, with_plan: bool) -> dict[str, Any]:
    """Returns the field `latentplan` of a choice."""
    solution = done.solution
    answer = extract_answer(solution.completion)
    values: dict[str, Any] = {"answer": answer, "num_latents": solution.num_latents}
    if with_plan:
        plan = solution.plan
        score = None if plan is None else coherence(plan, answer, question)
        values |= {"plan": plan, "coherence": score}
    return values


def coherence(plan: Sequence[str], answer: str | None, question: str) -> float:
    """Computes `strict_coherence` where a step holds an equation, else `natural_coherence`, of sentences."""
    if any(map(equations_of, plan)):
        return strict_coherence(plan, answer)
    return natural_coherence(plan, answer, question)


@dataclass(frozen=True)
class Shape:
    """What is called how: chat or plain completions.

    Attributes:
        prefix: of ids.
        whole, chunk: names of the objects.
        chat: whether text stands in messages.
    """

    prefix: str
    whole: str
    chunk: str
    chat: bool


CHAT = Shape("chatcmpl-", "chat.completion", "chat.completion.chunk", True)
COMPLETION = Shape("cmpl-", "text_completion", "text_completion", False)


@dataclass
class Answer:
    """The answer to one request.

    Args:
        shape: chat or plain.
        model: its name.
        questions: of each trajectory.
        seed: of the noise.
        with_plan: whether plans were requested.
        prompt_tokens: of all questions.
    """

    shape: Shape
    model: str
    questions: Sequence[str]
    seed: int
    with_plan: bool
    prompt_tokens: int
    created: int = field(default_factory=lambda: int(time.time()))
    number: str = field(default_factory=lambda: secrets.token_hex(12))

    def whole(self, finished: Sequence[Finished]) -> dict[str, Any]:
        """Returns all of it, from its trajectories in their order."""
        choices = []
        for done in finished:
            text = done.solution.completion
            content: dict[str, Any] = {"text": text}
            if self.shape.chat:
                content = {"message": {"role": "assistant", "content": text, "refusal": None}}
            choices.append(self._choice(done.index, content, done))
        return {**self._head(self.shape.whole, choices), "usage": usage(self.prompt_tokens, finished)}

    def opening(self, index: int) -> bytes:
        """Returns the first chunk of a choice."""
        return self._chunk([self._choice(index, self._content("", role="assistant"))])

    def delta(self, index: int, text: str) -> bytes:
        """Returns a chunk with more text."""
        return self._chunk([self._choice(index, self._content(text))])

    def ending(self, done: Finished) -> bytes:
        """Returns the last chunk of a choice."""
        content: dict[str, Any] = {"delta": {}} if self.shape.chat else {"text": ""}
        return self._chunk([self._choice(done.index, content, done)])

    def closing(self, finished: Sequence[Finished], include_usage: bool) -> bytes:
        """Returns the end of a stream."""
        done = b"data: [DONE]\n\n"
        if not include_usage:
            return done
        return self._chunk([], usage=usage(self.prompt_tokens, finished)) + done

    def _content(self, text: str, **more: str) -> dict[str, Any]:
        return {"delta": {**more, "content": text}} if self.shape.chat else {"text": text}

    def _choice(self, index: int, content: dict[str, Any], done: Finished | None = None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, **content, "logprobs": None, "finish_reason": None}
        if done is not None:
            choice["finish_reason"] = done.finish_reason
            choice["latentplan"] = extension(done, self.questions[done.index], self.with_plan)
        return choice

    def _head(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.shape.prefix + self.number,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"latentplan-{__version__}",
            "choices": choices,
            "latentplan": {"seed": self.seed},
        }

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return event({**self._head(self.shape.chunk, choices), **more})


def event(data: Any) -> bytes:
    """Writes JSON as one server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
