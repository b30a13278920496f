"""What becomes of the answer when the latents are changed: intact and edited chains in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import answer_from, generate
from latentplan.rollout.plan_decoding import decode_plans
from latentplan.rollout.solve import question_batch
from latentplan.rollout.trace import LatentStep, trace
from latentplan.serving.inspector.asking import judged
from latentplan.serving.inspector.edits import Edit, apply, in_words
from latentplan.serving.inspector.subjects import Subject

_THINKING_ON = ("zero", "noise", "swap", "splice", "move")


def intervene(
    subject: Subject,
    question: str,
    edits: Sequence[Edit],
    *,
    of_models: Mapping[str, torch.Tensor] | None = None,
    max_new_tokens: int = 128,
    reference: str | None = None,
) -> dict[str, Any]:
    """The greedy answer with the chain as it is, and after each edit.

    Args:
        subject: the model.
        question: in words.
        edits: each made to the intact chain.
        of_models: the chains of other models for this question, by name, for `move`.
        max_new_tokens: of text, at most.
        reference: the right answer, where it is known.

    Returns:
        `intact` and `outcomes`, in the order of the edits: `label`, `num_steps`, and what `asking.judged`
        says; and `others`: of each question whose steps were put in, its own answer.

    Raises:
        ValueError: the model has no latents, or an edit does not fit its chain.
    """
    if not subject.model.reasoner.config.num_slots:
        raise ValueError(f"{subject.name} has no latents that could be changed: it writes its steps, or none")
    questions = list(dict.fromkeys([question, *(edit.question for edit in edits if edit.question)]))
    chains = dict(zip(questions, greedy_chains(subject.model, questions), strict=True))
    others = {**chains, **(of_models or {})}
    edited = [
        _edited(subject, question, chains[question], edit, others.get(edit.question or edit.model or ""))
        for edit in edits
    ]
    asked = [question] * (1 + len(edits)) + questions[1:]
    all_chains = [chains[question], *edited, *(chains[other] for other in questions[1:])]
    completions = _answers(subject.model, asked, all_chains, max_new_tokens)
    plans = _plans(subject.model, all_chains)
    labels = ["intact", *map(in_words, edits), *questions[1:]]
    rows = [
        {
            "label": label,
            "num_steps": len(chain),
            **judged(subject, at, completion, plan, reference if at == question else None),
        }
        for label, at, chain, completion, plan in zip(
            labels, asked, all_chains, completions, plans, strict=True
        )
    ]
    first_other = 1 + len(edits)
    return {"intact": rows[0], "outcomes": rows[1:first_other], "others": rows[first_other:]}


def greedy_chains(model: LoadedModel, questions: Sequence[str]) -> list[torch.Tensor]:
    """The most probable chain of each question, `[steps, latents_per_step, hidden]` each."""
    ids, mask = question_batch(model, questions)
    places = torch.zeros(len(questions), dtype=torch.long, device=ids.device)
    rolled = generate(model.reasoner, ids, mask, places, seed=0, sampling=Sampling.greedy(1))
    size = model.reasoner.config.latents_per_step
    return [
        latents[used.bool()].unflatten(0, (-1, size))
        for latents, used in zip(rolled.latents, rolled.slot_mask, strict=True)
    ]


def _edited(
    subject: Subject,
    question: str,
    chain: torch.Tensor,
    edit: Edit,
    other: torch.Tensor | None,
) -> torch.Tensor:
    changed = apply(chain, edit, other)
    if not edit.think_on:
        return changed
    if edit.kind not in _THINKING_ON:
        raise ValueError(f"after {edit.kind} the steps would only be thought again as they were")
    given = changed[: max(edit.steps, default=len(changed))]
    traced = trace(subject.model, question, max_new_tokens=0, given=given)
    return torch.stack([seen.latents for seen in traced if isinstance(seen, LatentStep) and not seen.stopped])


@torch.no_grad()
def _answers(
    model: LoadedModel, questions: Sequence[str], chains: Sequence[torch.Tensor], max_new_tokens: int
) -> list[str]:
    ids, mask = question_batch(model, questions)
    latents, slot_mask = _padded(chains)
    keys = torch.zeros(len(chains), dtype=torch.long, device=ids.device)
    sampling = Sampling.greedy(max_new_tokens)
    answer_ids = answer_from(model.reasoner, ids, mask, latents, slot_mask, keys, sampling)
    return [text.strip() for text in model.tokenizer.batch_decode(answer_ids, skip_special_tokens=True)]


def _plans(model: LoadedModel, chains: Sequence[torch.Tensor]) -> list[list[str]] | list[None]:
    if model.step_decoder is None:
        return [None] * len(chains)
    latents, slot_mask = _padded(chains)
    return decode_plans(model.step_decoder, model.tokenizer, latents, slot_mask)


def _padded(chains: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Chains of steps to latents `[chains, slots, hidden]` and their mask `[chains, slots]`."""
    flat = [chain.flatten(0, 1) for chain in chains]
    latents = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True)
    lengths = torch.tensor([len(each) for each in flat], device=latents.device)
    return latents, (torch.arange(latents.shape[1], device=latents.device) < lengths.unsqueeze(1)).long()
