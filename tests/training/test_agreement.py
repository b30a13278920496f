"""The signal in a gradient: cosines by hand, and on a policy whose gradient is known to be noise or not."""

import json
import math

import pytest
import torch
from torch import nn

from latentplan.training.agreement import agreement, gradients


def many_letters(prompts, completions, **kwargs):
    return [float(len(completion)) for completion in completions]


class TwoParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.frozen = nn.Linear(1, 1, bias=False).requires_grad_(False)


def test_gradients_are_of_what_is_trained():
    module = TwoParts()
    losses = {
        "head": 3 * module.head.weight.sum(),
        "both": module.head.weight.sum() + 2 * module.body.weight.sum(),
        "none": torch.zeros(()),
    }
    found = gradients(losses, module)
    assert set(found) == {"head", "both"}
    assert {name: float(value) for name, value in found["head"].items()} == {
        "head.weight": 3,
        "body.weight": 0,
    }
    assert float(found["both"]["body.weight"]) == 2


def test_cosines_by_hand():
    def halves(*values):
        return {"head.weight": torch.tensor(values[:2]), "body.weight": torch.tensor(values[2:])}

    first = {"answers": halves(1.0, 0, 0), "latents": halves(0.0, 0, 1), "silent": halves(0.0, 0, 0)}
    second = {"answers": halves(1.0, 1, 0), "latents": halves(0.0, 0, -2), "silent": halves(0.0, 0, 0)}
    found = agreement(first, second, ["head", "body", "stop_head"])
    assert found == pytest.approx(
        {"answers": 1 / math.sqrt(2), "latents": -1, "head": 1 / math.sqrt(2), "body": -1}
    )


def test_a_run_measures_it_at_the_start_and_at_evaluations(run_grpo, trained, tmp_path):
    start = trained("atp_latent")
    reward = {"reward_funcs": [f"{__name__}:many_letters"], "estimator": "pathwise"}
    evaluates = {"eval_strategy": "steps", "eval_steps": 2, "eval_dataset_size": 8}
    plain = run_grpo(tmp_path / "plain", start, **reward)
    run = run_grpo(tmp_path / "run", start, **reward, **evaluates)
    found = json.loads((run.path / "run.json").read_text())["starting_agreement"]
    assert {"answers", "backbone", "latent_head"} <= set(found)
    assert all(-1 <= value <= 1 for value in found.values())
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    evaluated = [row for row in rows if "eval_agreement/answers" in row]
    assert len(evaluated) == 3
    assert evaluated[0]["eval_latents/drift"] > 0
    kept = [{k: v for k, v in row.items() if k != "seconds"} for row in rows if "loss" in row]
    lines = (plain.path / "metrics.jsonl").read_text().splitlines()
    assert kept == [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]
