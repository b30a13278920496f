"""Worked examples: a few test questions that show what RL, or a single run, got right and wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from latentplan.problems.answers import kind_in_file
from latentplan.problems.minigsm.presets import PRESETS
from latentplan.report.run_reader import Prediction, Run, by_problem, rl_pairs
from latentplan.rewards.plan_graph import PlanGraph, in_sentences
from latentplan.rewards.plan_report import Step, marked_sentences, marked_steps

_PER_GROUP = 2

_Key = tuple[Any, Any]


@dataclass(frozen=True)
class Answer:
    """What one run made of a question."""

    run: Run
    answer: str
    correct: bool
    latents: Any
    tokens: Any
    steps: Sequence[Step] | None

    @property
    def flaws(self) -> int:
        """Steps of the plan with something wrong."""
        return sum(bool(step.flaw) for step in self.steps or ())


@dataclass(frozen=True)
class Example:
    """A question, every run's answer, and those whose plans are shown side by side."""

    question: str
    reference: str
    labelled: Sequence[str]
    answers: Sequence[Answer]
    plans: Sequence[Answer]


@dataclass(frozen=True)
class Group:
    """Examples of one kind, and how many test questions are of that kind."""

    title: str
    total: int
    examples: Sequence[Example]


def example_groups(runs: Sequence[Run]) -> list[Group]:
    """The most telling questions: fixed and broken by RL, right for both, wrong for both."""
    shown = _shown(runs)
    if not shown:
        return []
    rows = [(run, by_problem(run)) for run in runs]
    examples = [example for key in by_problem(shown[0]) if (example := _example(key, rows, shown))]
    kinds = _KINDS_OF_PAIR if len(shown) == 2 else _KINDS_OF_ONE
    groups = []
    for title, outcome in kinds:
        members = [example for example in examples if tuple(a.correct for a in example.plans) == outcome]
        if members:
            chosen = sorted(members, key=_telling, reverse=True)[:_PER_GROUP]
            groups.append(Group(title, len(members), chosen))
    return groups


_KINDS_OF_PAIR = (
    ("Fixed by RL", (False, True)),
    ("Broken by RL", (True, False)),
    ("Right before and after", (True, True)),
    ("Wrong before and after", (False, False)),
)
_KINDS_OF_ONE = (("Right", (True,)), ("Wrong", (False,)))


def _shown(runs: Sequence[Run]) -> list[Run]:
    """The runs whose plans are compared: before and after RL, else the last with plans, else the last."""
    for pair in rl_pairs(runs)[::-1]:
        if all(run.predictions for run in pair):
            return list(pair)
    answered = [run for run in runs if run.predictions]
    planning = [run for run in answered if any(row.get("plan") for row in run.predictions)]
    return (planning or answered)[-1:]


def _example(
    key: _Key, rows: Sequence[tuple[Run, dict[_Key, Prediction]]], shown: Sequence[Run]
) -> Example | None:
    found = [(run, by_key[key]) for run, by_key in rows if key in by_key]
    answers = [_answer(run, row) for run, row in found]
    plans = [answer for answer in answers if answer.run in shown]
    if len(plans) < len(shown):
        return None
    row = found[0][1]
    return Example(row["question"], str(row.get("reference", "")), row.get("steps") or [], answers, plans)


def _answer(run: Run, row: Prediction) -> Answer:
    answer, plan = row.get("answer"), row.get("plan")
    modulus = row.get("modulus") or modulus_of(run)
    kind = kind_in_file(str(row.get("reference", "")), row.get("answer_kind"))
    steps = None
    if plan is not None:
        marked = marked_sentences if in_sentences(row.get("steps") or plan) else marked_steps
        steps = marked(PlanGraph([str(step) for step in plan], row["question"], answer, modulus, kind))
    shown = "no answer" if answer is None else str(answer)
    return Answer(run, shown, bool(row.get("correct")), row.get("num_latents"), row.get("num_tokens"), steps)


def _telling(example: Example) -> tuple[int, int, int]:
    """Long plans tell more, and so do plans that differ, or whose flaws explain what became of the answer."""
    plans = [[step.text for step in answer.steps or ()] for answer in example.plans]
    differ = len(plans) == 2 and plans[0] != plans[1]
    explained = sum((answer.flaws > 0) != answer.correct for answer in example.plans)
    return explained, int(differ), max(map(len, plans))


def modulus_of(run: Run) -> int | None:
    """The modulus of the arithmetic in a run's data, None for ordinary numbers."""
    data = run.recorded("data")
    if isinstance(data, dict) and "modulus" in data:
        return None if data["modulus"] is None else int(data["modulus"])
    names = run.config.get("dataset_name")
    preset = PRESETS.get(str(run.config.get("dataset_config")))
    is_clock = preset is not None and preset.world == "clock" and "minigsm" in (names or ())
    return preset.modulus if preset is not None and is_clock else None
