"""Chains in sentences all the way: supervised latents, decoded plans, and RL on what they carry on."""

import json
from itertools import product

import pytest

from latentplan.evaluation.harness import evaluate
from latentplan.modeling.loading import load_model
from latentplan.problems.problem import Problem
from latentplan.problems.training_set import DataArguments
from latentplan.training.configs import ModelArguments
from latentplan.training.run_training import train_grpo, train_sft

PARENTS = {"terp": "brim", "gor": "lem"}


def problem(who: str, low: str, other: str) -> Problem:
    (high, wrong), end = (PARENTS[low], PARENTS[other]), "Is {} a {} or {}?"
    told = [f"{who} is a {low}.", f"Every {low} is a {high}.", f"Every {other} is a {wrong}."]
    question = " ".join([*told, end.format(who, high, wrong)])
    return Problem(question, tuple(told[:2]), f"{who} is a {high}.")


PROBLEMS = [
    problem(who, *pair) for who, pair in product(["Tom", "Bob", "Eve"], [("terp", "gor"), ("gor", "terp")])
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    file = tmp_path_factory.mktemp("sentences") / "train.jsonl"
    file.write_text("".join(json.dumps(each.to_json()) + "\n" for each in PROBLEMS))
    return DataArguments(dataset_name=[str(file)])


@pytest.fixture(scope="module")
def supervised(data, scratch_model, sft_config, tmp_path_factory):
    config = sft_config(
        tmp_path_factory.mktemp("sft") / "run",
        max_latent_steps=2,
        latents_per_step=1,
        initial_log_variance=-6.0,
        curriculum_steps=[40, 100],
        learning_rate=1e-2,
        logging_steps=50,
        save_strategy="no",
    )
    return train_sft(scratch_model, data, config).path


def test_decoded_sentences_are_read_and_rewarded(supervised, data, grpo_config, tmp_path):
    result, predictions = evaluate(load_model(supervised), PROBLEMS, latent_use=False)
    assert result.coherence.natural > 0.5
    assert result.coherence.strict is None  # no equation leads to a sentence's answer
    assert predictions[0].plan[0].endswith(".")
    config = grpo_config(
        tmp_path / "run",
        max_steps=2,
        reward_funcs=["accuracy", "format", "coherence_natural_if_correct", "coherence_natural"],
        reward_weights=[1.0, 0.5, 0.1, 0.0],
        max_completion_length=8,
        save_strategy="no",
    )
    run = train_grpo(ModelArguments(model_name_or_path=str(supervised)), data, config)
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    rewarded = [row for row in rows if "rewards/coherence_natural/mean" in row]
    assert len(rewarded) == 2
    for row in rewarded:
        parts = (
            row[f"rewards/{name}/mean"] for name in ("accuracy", "format", "coherence_natural_if_correct")
        )
        right, well_formed, coherent = parts
        assert row["reward"] == pytest.approx(right + 0.5 * well_formed + 0.1 * coherent, abs=1e-5)
        assert coherent <= right
        assert row["rewards/coherence_natural/mean"] > 0
