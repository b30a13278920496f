"""Training on evaluation questions is refused, and evaluation says what a run was trained on."""

from __future__ import annotations

import numpy as np
import pytest

from latentplan.problems import decontamination as trained_questions
from latentplan.problems.decontamination import (
    TRAINED_QUESTIONS,
    ContaminationError,
    TrainedQuestions,
    find_overlap,
    refuse_overlap,
)
from latentplan.problems.problem import Problem


def asking(*questions):
    return [Problem(question, (), "1") for question in questions]


def test_overlap_is_refused_by_name_number_and_place():
    train = asking("Why?", "Ann has 2 pens. " + "And so on. " * 20, "How many?")
    refuse_overlap(train, {"svamp": asking("Who?"), "gsm8k": []})
    refuse_overlap(train, {})
    with pytest.raises(ContaminationError) as error:
        refuse_overlap(train, {"gsm8k=test.jsonl": asking("HOW  many", "ann has 2 pens" + " and so on" * 20)})
    message = str(error.value)
    assert "2 of 3 training problems are questions of the evaluation set gsm8k=test.jsonl" in message
    assert "training problem 1 'Ann has 2 pens. And so on." in message
    assert "…'; training problem 2 'How many?'." in message
    assert "list gsm8k=test.jsonl under exclude_benchmarks" in message
    with pytest.raises(ContaminationError, match=r"train.jsonl:12 'How many\?'"):
        refuse_overlap(train, {"x": asking("how many")}, lambda index: f"train.jsonl:{index + 10}")


def test_only_the_first_few_are_shown():
    train = asking(*(f"How many are {number}?" for number in range(20)))
    with pytest.raises(ContaminationError, match=r"problem 4 'How many are 4\?', and 15 more\. To train"):
        refuse_overlap(train, {"all": train})


def test_questions_of_any_script_are_told_apart():
    train = asking("苹果有几个？", "Combien de crêpes ?", "Сколько яблок?")
    assert find_overlap(train, asking("梨有几个？", "combien de crepes", "сколько груш")) == []
    assert find_overlap(train, asking("苹果 有几个", "COMBIEN DE CRÊPES", "сколько яблок")) == train[1:]
    refuse_overlap(train, {"others": asking("梨有几个？")})


def test_trained_questions_are_counted_and_kept(tmp_path):
    questions = TrainedQuestions.of(asking("Why?", "why", "How many?"))
    assert len(questions.keys) == 2
    both = questions | TrainedQuestions.of(asking("Who?"))
    both.save(tmp_path)
    assert (tmp_path / TRAINED_QUESTIONS).stat().st_size < 200
    for model in (tmp_path, tmp_path / "model"):
        loaded = TrainedQuestions.load(model)
        assert loaded is not None
        assert loaded.count(asking("WHO?", "why", "Where?")) == 2
    assert TrainedQuestions.load(tmp_path / "a" / "b") is None
    assert TrainedQuestions.load(None) is None
    (tmp_path / TRAINED_QUESTIONS).write_bytes(b"torn")
    assert TrainedQuestions.load(tmp_path) is None


def test_many_questions_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(trained_questions, "MAX_KEYS", 1000)
    train = asking(*(f"How many are {number}?" for number in range(5000)))
    questions = TrainedQuestions.of(train[:3000]) | TrainedQuestions.of(train[2000:4000])
    assert len(questions.keys) == 1000
    questions.save(tmp_path)
    loaded = TrainedQuestions.load(tmp_path)
    assert loaded is not None
    assert np.array_equal(loaded.keys, questions.keys)
    assert 3700 <= loaded.count(train) <= 4300  # 4000 of 5000
    assert loaded.count(asking("Who?")) == 0
