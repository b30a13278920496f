"""What the inspector shows, as JSON: a trace event by event, the outcomes of edits, the votes of samples.

{"event": "step", "number": 1, "latents": [{"norm": 11.2, "sigma": 0.13}], "stop": 0.002, "decoded": {...}}
{"event": "stop", "probability": 0.998}
{"event": "token", "text": "### ", "probability": 1.0}
{"event": "done", "completion": "### 9", "answer": "9", "plan": {...}, ...}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from latentplan.modeling.loading import LoadedModel
from latentplan.problems.answers import NUMBER, AnswerKind
from latentplan.rewards.plan_graph import PlanGraph
from latentplan.rewards.plan_report import read_plan
from latentplan.rollout.decoded_text import Piece, decode_steps, next_words, text_of, texts_of
from latentplan.rollout.edits import Edit, answers_after, edited_chain, in_words, pad_chains
from latentplan.rollout.plan_decoding import decode_plans, written_plan
from latentplan.rollout.solve import Solution, greedy_chains
from latentplan.rollout.trace import LatentStep, Token, trace
from latentplan.serving.inspector.inspected_model import InspectedModel

Event = dict[str, Any]


def ask(
    inspected: InspectedModel, question: str, *, max_new_tokens: int = 128, reference: str | None = None
) -> Iterator[Event]:
    """Yields the most probable trajectory, event by event.

    Args:
        inspected: the model.
        question: in words.
        max_new_tokens: of text, at most.
        reference: the correct answer, where it is known.
    """
    plan: list[str] = []
    tokens: list[Token] = []
    num_latents = num_steps = 0
    for seen in trace(inspected.model, question, max_new_tokens=max_new_tokens):
        if isinstance(seen, Token):
            tokens.append(seen)
            if not seen.last:
                yield _token_event(inspected, tokens)
        elif seen.stopped:
            yield {"event": "stop", "probability": seen.stop}
        else:
            num_steps, num_latents = num_steps + 1, num_latents + len(seen.latents)
            event = _step_event(inspected, num_steps, seen)
            plan += [event["decoded"]["text"]] if event["decoded"] else []
            yield event
    words = [token for token in tokens if not token.last]
    completion = text_of(inspected.model.tokenizer, [token.id for token in words])
    yield {
        "event": "done",
        **judged(inspected, question, completion.strip(), _plan_of(inspected, plan, completion), reference),
        "written": _written(inspected, words),
        "answer_probability": _product([token.probability for token in _of_answer(inspected, tokens)]),
        "num_latents": num_latents,
        "num_tokens": num_latents + len(words),
        "finished": bool(tokens) and tokens[-1].last,
    }


def judged(
    inspected: InspectedModel,
    question: str,
    completion: str,
    plan: Sequence[str] | None,
    reference: str | None,
) -> dict[str, Any]:
    """Returns a completion's answer, whether it is correct (None: not known), and its plan read step by
    step.
    """
    kind = inspected.kind_of(question, reference)
    answer = kind.extract(completion)
    return {
        "completion": completion,
        "answer": answer,
        "correct": None if reference is None else kind.is_correct(completion, reference),
        "plan": None
        if plan is None
        else plan_json(PlanGraph(plan, question, answer, inspected.modulus, kind)),
    }


def plan_json(graph: PlanGraph) -> dict[str, Any]:
    """Returns a plan with what is said of its steps."""
    reading = read_plan(graph)
    pairs = zip(graph.steps, reading.steps, strict=True)
    return {
        "steps": [{"text": text, **asdict(each)} for text, each in pairs],
        "links": [asdict(link) for link in reading.links],
        "scores": reading.scores,
    }


def _step_event(inspected: InspectedModel, number: int, step: LatentStep) -> Event:
    decoder = inspected.model.step_decoder
    decoded = words = None
    if decoder is not None:
        decoded = asdict(decode_steps(decoder, inspected.model.tokenizer, step.latents.unsqueeze(0))[0])
    else:
        words = [[asdict(piece) for piece in top] for top in next_words(inspected.model, step.hidden)]
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


def _token_event(inspected: InspectedModel, tokens: Sequence[Token]) -> Event:
    """Makes the event of the last token, whose text may depend on those before it."""
    near = [token.id for token in tokens[-8:]]
    *_, text = texts_of(inspected.model.tokenizer, near)
    return {"event": "token", "text": text, "probability": tokens[-1].probability}


def _plan_of(inspected: InspectedModel, decoded: list[str], completion: str) -> list[str] | None:
    config = inspected.model.reasoner.config
    if inspected.model.step_decoder is not None:
        return decoded
    if config.written_steps:
        return written_plan(completion, config.step_separator, config.answer_marker)
    return None


def _written(inspected: InspectedModel, tokens: Sequence[Token]) -> list[dict[str, Any]] | None:
    """Returns each step's tokens and their product, for a model that writes its steps; else None."""
    config, tokenizer = inspected.model.reasoner.config, inspected.model.tokenizer
    if not config.written_steps or inspected.model.step_decoder is not None:
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
    """Returns the pieces of which some character lies in `begin … end` of the joined text."""
    chosen, at = [], 0
    for piece in pieces:
        if at < end and at + len(piece.text) > begin:
            chosen.append(piece)
        at += len(piece.text)
    return chosen


def _of_answer(inspected: InspectedModel, tokens: Sequence[Token]) -> list[Token]:
    """Returns the tokens from the last answer marker on, the end included; all where there is none."""
    marker = inspected.model.processor.marker
    ids = [token.id for token in tokens]
    starts = [index for index in range(len(ids)) if marker and ids[index : index + len(marker)] == marker]
    return list(tokens[starts[-1] :]) if starts else list(tokens)


def _product(values: Sequence[float]) -> float:
    product = 1.0
    for value in values:
        product *= value
    return product


def intervene(
    inspected: InspectedModel,
    question: str,
    edits: Sequence[Edit],
    *,
    of_models: Mapping[str, torch.Tensor] | None = None,
    max_new_tokens: int = 128,
    reference: str | None = None,
) -> dict[str, Any]:
    """Returns the greedy answer with the chain as it is, and after each edit.

    Args:
        inspected: the model.
        question: in words.
        edits: each made to the intact chain.
        of_models: the chains of other models for this question, by name, for `move`.
        max_new_tokens: of text, at most.
        reference: the correct answer, where it is known.

    Returns:
        `intact` and `outcomes`, in the order of the edits: `label`, `num_steps`, and what `asking.judged`
        says; and `others`: of each question whose steps were put in, its own answer.

    Raises:
        ValueError: the model has no latents, or an edit does not fit its chain.
    """
    if not inspected.model.reasoner.config.has_latents:
        raise ValueError(
            f"{inspected.name} has no latents that could be changed: it writes its steps, or none"
        )
    questions = list(dict.fromkeys([question, *(edit.question for edit in edits if edit.question)]))
    chains = dict(zip(questions, chains_of(inspected.model, questions), strict=True))
    others = {**chains, **(of_models or {})}
    edited = [
        edited_chain(
            inspected.model, question, chains[question], edit, others.get(edit.question or edit.model or "")
        )
        for edit in edits
    ]
    all_questions = [question] * (1 + len(edits)) + questions[1:]
    all_chains = [chains[question], *edited, *(chains[other] for other in questions[1:])]
    latents, slot_mask = pad_chains(all_chains)
    completions = answers_after(inspected.model, all_questions, latents, slot_mask, max_new_tokens)
    plans = _decoded_plans(inspected.model, latents, slot_mask)
    labels = ["intact", *map(in_words, edits), *questions[1:]]
    rows = [
        {
            "label": label,
            "num_steps": len(chain),
            **judged(inspected, at, completion.strip(), plan, reference if at == question else None),
        }
        for label, at, chain, completion, plan in zip(
            labels, all_questions, all_chains, completions, plans, strict=True
        )
    ]
    first_other = 1 + len(edits)
    return {"intact": rows[0], "outcomes": rows[1:first_other], "others": rows[first_other:]}


def chains_of(model: LoadedModel, questions: Sequence[str]) -> list[torch.Tensor]:
    """Computes the most probable chain of each question, `[steps, latents_per_step, hidden]` each."""
    chains = greedy_chains(model, questions, with_plans=False)
    return chains.by_question(model.reasoner.config.latents_per_step)


def _decoded_plans(
    model: LoadedModel, latents: torch.Tensor, slot_mask: torch.Tensor
) -> list[list[str]] | list[None]:
    if model.step_decoder is None:
        return [None] * len(latents)
    device = model.reasoner.device
    return decode_plans(model.step_decoder, model.tokenizer, latents.to(device), slot_mask.to(device))


def tally(
    inspected: InspectedModel, question: str, solutions: Sequence[Solution], reference: str | None = None
) -> dict[str, Any]:
    """Returns the samples, counted.

    Returns:
        `answers`: each different answer (None: no answer) with its votes, most first; `plans`: each different
        plan likewise, with its answers, None for a model whose steps cannot be read; `num_tokens`: mean.
    """
    kind = inspected.kind_of(question, reference)
    return {
        "count": len(solutions),
        "answers": votes(solutions, reference, kind),
        "plans": _plans(inspected, question, solutions, kind),
        "num_tokens": sum(solution.num_tokens for solution in solutions) / len(solutions),
        "num_unfinished": sum(not solution.finished for solution in solutions),
    }


def votes(
    solutions: Sequence[Solution], reference: str | None = None, kind: AnswerKind = NUMBER
) -> list[dict[str, Any]]:
    """Counts who gave each answer, most first, of equals the one that came first; and whether it is
    correct.
    """
    answers = [kind.extract(solution.completion) for solution in solutions]
    by_answer = dict(zip(answers[::-1], solutions[::-1], strict=True))
    return [
        {
            "answer": answer,
            "votes": number,
            "correct": None
            if reference is None
            else kind.is_correct(by_answer[answer].completion, reference),
        }
        for answer, number in Counter(answers).most_common()
    ]


def _plans(
    inspected: InspectedModel, question: str, solutions: Sequence[Solution], kind: AnswerKind
) -> list[dict[str, Any]] | None:
    """Groups equal plans, which read the same but for white space."""
    if any(solution.plan is None for solution in solutions):
        return None
    members: dict[tuple[str, ...], list[Solution]] = {}
    for solution in solutions:
        key = tuple("".join(step.split()) for step in solution.plan or ())
        members.setdefault(key, []).append(solution)
    found = []
    for group in sorted(members.values(), key=len, reverse=True):
        steps, answers = group[0].plan or [], votes(group, None, kind)
        graph = PlanGraph(steps, question, answers[0]["answer"], inspected.modulus, kind)
        found.append({"votes": len(group), "answers": answers, **plan_json(graph)})
    return found
