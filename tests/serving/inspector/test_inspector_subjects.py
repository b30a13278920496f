import json

import pytest

from latentplan.serving.inspector.inspected_model import Example, inspected_model


@pytest.fixture
def run(tmp_path):
    (tmp_path / "evaluation").mkdir()
    rows = [
        {"index": 1, "question": "b ?", "reference": "2", "steps": ["<<1+1=2>>"]},
        {"index": 0, "question": "a ?", "reference": "1", "steps": []},
        {"index": 1, "question": "b ?", "reference": "2", "steps": ["<<1+1=2>>"]},
    ]
    (tmp_path / "evaluation/own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "run.json").write_text(json.dumps({"kind": "grpo", "data": {"modulus": 11}}))
    (tmp_path / "model").mkdir()
    return tmp_path


@pytest.mark.parametrize("folder", ["", "model"])
def test_examples_are_the_questions_of_the_run_s_evaluations(run, folder, learnt):
    inspected = inspected_model("mine", learnt.model, run / folder)
    assert inspected.examples == (Example("a ?", "1", 0), Example("b ?", "2", 1))
    assert (inspected.modulus, inspected.stage) == (11, "RL")


def test_without_an_evaluation_they_are_test_questions_of_its_minigsm_preset(run, learnt):
    (run / "evaluation/own.jsonl").write_text("broken\n")
    (run / "config.yaml").write_text("dataset_name: [minigsm]\ndataset_config: clock\n")
    examples = inspected_model("mine", learnt.model, run).examples
    assert len(examples) > 20
    assert all(example.answer for example in examples)


def test_folder_without_a_run_has_no_examples(tmp_path, learnt):
    (tmp_path / "run.json").mkdir()
    inspected = inspected_model("bare", learnt.model, tmp_path)
    assert (inspected.examples, inspected.modulus, inspected.stage) == ((), None, "")


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("atp_latent", {"latents": True, "decoder": True, "gaussian": True, "stop_head": True}),
        ("coconut", {"latents": True, "decoder": False, "gaussian": False, "stop_head": False}),
        ("cot", {"latents": False, "decoder": False, "written_steps": True, "max_latent_steps": 0}),
    ],
)
def test_facts_say_what_a_model_has(make_inspected, method, expected):
    facts = make_inspected(method).facts()
    assert {name: facts[name] for name in expected} == expected
