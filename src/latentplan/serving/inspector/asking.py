"""Asking one model one question: events as they happen, each a mapping that goes to the page as it is.

{"event": "step", "number": 1, "latents": [{"norm": 11.2, "sigma": 0.13}], "stop": 0.002, "decoded": {...}}
{"event": "stop", "probability": 0.998}
{"event": "token", "text": "### ", "probability": 1.0}
{"event": "done", "completion": "### 9", "answer": "9", "plan": {...}, ...}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from latentplan.rollout.decoded_text import Piece, decode_steps, next_words, text_of, texts_of
from latentplan.rollout.plan_decoding import written_plan
from latentplan.rollout.trace import LatentStep, Token, trace
from latentplan.serving.inspector.reading import PlanReading, read_plan
from latentplan.serving.inspector.subjects import Subject

Event = dict[str, Any]


def ask(
    subject: Subject, question: str, *, max_new_tokens: int = 128, reference: str | None = None
) -> Iterator[Event]:
    """The most probable trajectory, event by event.

    Args:
        subject: the model.
        question: in words.
        max_new_tokens: of text, at most.
        reference: the right answer, where it is known.
    """
    plan: list[str] = []
    tokens: list[Token] = []
    num_latents = num_steps = 0
    for seen in trace(subject.model, question, max_new_tokens=max_new_tokens):
        if isinstance(seen, Token):
            tokens.append(seen)
            if not seen.last:
                yield _token_event(subject, tokens)
        elif seen.stopped:
            yield {"event": "stop", "probability": seen.stop}
        else:
            num_steps, num_latents = num_steps + 1, num_latents + len(seen.latents)
            event = _step_event(subject, num_steps, seen)
            plan += [event["decoded"]["text"]] if event["decoded"] else []
            yield event
    words = [token for token in tokens if not token.last]
    completion = text_of(subject.model.tokenizer, [token.id for token in words])
    yield {
        "event": "done",
        **judged(subject, question, completion.strip(), _plan_of(subject, plan, completion), reference),
        "written": _written(subject, words),
        "answer_probability": _product([token.probability for token in _of_answer(subject, tokens)]),
        "num_latents": num_latents,
        "num_tokens": num_latents + len(words),
        "finished": bool(tokens) and tokens[-1].last,
    }


def judged(
    subject: Subject, question: str, completion: str, plan: Sequence[str] | None, reference: str | None
) -> dict[str, Any]:
    """A completion's answer, whether it is right (None: not known), and its plan read step by step."""
    kind = subject.kind_of(question, reference)
    answer = kind.extract(completion)
    return {
        "completion": completion,
        "answer": answer,
        "correct": None if reference is None else kind.is_correct(completion, reference),
        "plan": None
        if plan is None
        else plan_json(plan, read_plan(plan, answer, question, subject.modulus, kind)),
    }


def plan_json(steps: Sequence[str], reading: PlanReading) -> dict[str, Any]:
    """A plan with what is said of its steps."""
    return {
        "steps": [{"text": text, **asdict(each)} for text, each in zip(steps, reading.steps, strict=True)],
        "links": [asdict(link) for link in reading.links],
        "scores": reading.scores,
    }


def _step_event(subject: Subject, number: int, step: LatentStep) -> Event:
    decoder = subject.model.step_decoder
    decoded = words = None
    if decoder is not None:
        decoded = asdict(decode_steps(decoder, subject.model.tokenizer, step.latents.unsqueeze(0))[0])
    else:
        words = [[asdict(piece) for piece in top] for top in next_words(subject.model, step.hidden)]
    sigmas = [None] * len(step.latents) if step.sigma is None else step.sigma.tolist()
    latents = [
        {"norm": norm, "sigma": sigma}
        for norm, sigma in zip(step.latents.norm(dim=-1).tolist(), sigmas, strict=True)
    ]
    return {
        "event": "step",
        "number": number,
        "latents": latents,
        "stop": step.stop,
        "decoded": decoded,
        "next_words": words,
    }


def _token_event(subject: Subject, tokens: Sequence[Token]) -> Event:
    """The last of the tokens; its text may hang on those before it."""
    near = [token.id for token in tokens[-8:]]
    *_, text = texts_of(subject.model.tokenizer, near)
    return {"event": "token", "text": text, "probability": tokens[-1].probability}


def _plan_of(subject: Subject, decoded: list[str], completion: str) -> list[str] | None:
    config = subject.model.reasoner.config
    if subject.model.step_decoder is not None:
        return decoded
    if config.written_steps:
        return written_plan(completion, config.step_separator, config.answer_marker)
    return None


def _written(subject: Subject, tokens: Sequence[Token]) -> list[dict[str, Any]] | None:
    """For a model that writes its steps, each step's tokens and their product; else None."""
    config, tokenizer = subject.model.reasoner.config, subject.model.tokenizer
    if not config.written_steps or subject.model.step_decoder is not None:
        return None
    texts = list(texts_of(tokenizer, [token.id for token in tokens]))
    pieces = [Piece(text, token.probability) for text, token in zip(texts, tokens, strict=True)]
    whole = "".join(texts)
    steps, position = [], 0
    for text in written_plan(whole, config.step_separator, config.answer_marker):
        begin = whole.index(text, position)
        position = begin + len(text)
        mine = _within(pieces, begin, position)
        steps.append(
            {
                "text": text,
                "probability": _product([piece.probability for piece in mine]),
                "pieces": [asdict(piece) for piece in mine],
            }
        )
    return steps


def _within(pieces: Sequence[Piece], begin: int, end: int) -> list[Piece]:
    """The pieces of which some character lies in `begin … end` of the joined text."""
    chosen, at = [], 0
    for piece in pieces:
        if at < end and at + len(piece.text) > begin:
            chosen.append(piece)
        at += len(piece.text)
    return chosen


def _of_answer(subject: Subject, tokens: Sequence[Token]) -> list[Token]:
    """The tokens from the last answer marker on, the end included; all where there is none."""
    marker = subject.model.encoder.marker
    ids = [token.id for token in tokens]
    starts = [place for place in range(len(ids)) if marker and ids[place : place + len(marker)] == marker]
    return list(tokens[starts[-1] :]) if starts else list(tokens)


def _product(values: Sequence[float]) -> float:
    product = 1.0
    for value in values:
        product *= value
    return product
