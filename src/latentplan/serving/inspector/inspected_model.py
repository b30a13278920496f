"""`InspectedModel`: a model in the inspector, with what its run says of its questions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from latentplan.common.run_files import EVALUATION, RECORD, read_record, read_settings, run_of
from latentplan.modeling.loading import LoadedModel
from latentplan.problems.answers import AnswerKind, kind_in_file
from latentplan.problems.problem import DataError
from latentplan.problems.sources import evaluation_set

NUM_EXAMPLES = 60


@dataclass(frozen=True)
class Example:
    """A question to pick.

    Attributes:
        question: in words.
        answer: the correct one.
        num_steps: of its labelled chain.
        answer_kind: the kind of answer, where the problem names one.
    """

    question: str
    answer: str
    num_steps: int
    answer_kind: str | None = None


@dataclass(frozen=True)
class InspectedModel:
    """A model under the inspector.

    Attributes:
        name: as the server calls it.
        model: reasoner, step decoder or None, tokenizer, processor.
        modulus: of the arithmetic in its data; None for ordinary numbers.
        examples: questions that it was not trained on.
        stage: `SFT` or `RL`, as its run says; empty where it does not.
    """

    name: str
    model: LoadedModel
    modulus: int | None = None
    examples: tuple[Example, ...] = ()
    stage: str = ""

    def kind_of(self, question: str, reference: str | None) -> AnswerKind:
        """Returns the kind of answer of a question: that of the example which it is, or what its reference
        tells.
        """
        named = (each.answer_kind for each in self.examples if each.question == question)
        return kind_in_file(reference, next(named, None))

    def facts(self) -> dict[str, Any]:
        """Returns what the page says of the model, and by what it decides what to show."""
        config = self.model.reasoner.config
        return {
            "name": self.name,
            "method": config.method,
            "stage": self.stage,
            "num_parameters": self.model.reasoner.num_parameters(),
            "latents": config.has_latents,
            "latents_per_step": config.latents_per_step,
            "hidden_size": config.hidden_size,
            "max_latent_steps": config.max_latent_steps if config.has_latents else 0,
            "decoder": self.model.step_decoder is not None,
            "gaussian": self.model.reasoner.is_gaussian,
            "stop_head": self.model.reasoner.stop_head is not None,
            "written_steps": config.written_steps,
            "modulus": self.modulus,
        }


def inspected_model(name: str, model: LoadedModel, folder: Path) -> InspectedModel:
    """Returns a model with what its run says; what cannot be read is left out.

    Args:
        name: as the server calls it.
        model: loaded from the folder.
        folder: a run, or its `model` folder.
    """
    run = run_of(folder, holding=RECORD)
    if run is None:
        return InspectedModel(name, model)
    record, config = read_record(run), read_settings(run)
    data = record.get("data")
    modulus = data.get("modulus") if isinstance(data, dict) else None
    stage = {"grpo": "RL", "sft": "SFT"}.get(str(record.get("kind")), "")
    examples = tuple(islice(_of_evaluations(run), NUM_EXAMPLES)) or _of_minigsm(config)
    return InspectedModel(name, model, modulus if isinstance(modulus, int) else None, examples, stage)


def _of_evaluations(run: Path) -> Iterator[Example]:
    """Yields the different questions of the run's evaluations, in their order."""
    seen = set()
    for file in sorted((run / EVALUATION).glob("*.jsonl")):
        try:
            with file.open(encoding="utf-8") as lines:
                rows = sorted(map(json.loads, islice(lines, 4096)), key=lambda row: row["index"])
            for row in rows:
                kind = row.get("answer_kind")
                example = Example(str(row["question"]), str(row["reference"]), len(row["steps"]), kind)
                if example.question not in seen:
                    seen.add(example.question)
                    yield example
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _of_minigsm(config: dict[str, Any]) -> tuple[Example, ...]:
    """Returns test questions of the minigsm preset that a run was trained on."""
    names = config.get("dataset_name")
    if "minigsm" not in (names if isinstance(names, list) else [names]):
        return ()
    try:
        _, load = evaluation_set(f"minigsm:{config.get('dataset_config') or 'default'}", limit=NUM_EXAMPLES)
        problems = load()
    except (DataError, ValueError):
        return ()
    return tuple(Example(each.question, each.answer, len(each.steps), each.answer_kind) for each in problems)
