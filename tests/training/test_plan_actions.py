"""Plans as actions: a reward read off the plan alone reaches the latents through the frozen decoder."""

import json

import pytest
import torch

from latentplan.modeling.loading import load_model

DRAWN = {"latent_gradient": "pathwise", "plan_temperature": 1.0, "answers_per_latent": 2}


def short_steps(prompts, completions, decoded_steps=None, **kwargs):
    """1 / the characters of a plan: nothing that the answer's words have a part in."""
    return [1 / (1 + sum(map(len, plan))) for plan in decoded_steps]


def test_a_reward_of_the_plan_alone_is_raised(run_grpo, trained, tmp_path):
    run = run_grpo(
        tmp_path / "run",
        trained("atp_latent"),
        reward_funcs=[f"{__name__}:short_steps"],
        max_steps=40,
        save_steps=40,
        learning_rate=3e-3,
        num_generations=8,
        per_device_train_batch_size=64,
        **DRAWN,
    )
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in rows if "reward" in row]
    assert sum(rewards[-8:]) > 1.2 * sum(rewards[:8])
    assert "clip_ratio/plans" in rows[0]


def test_the_decoder_stays_as_it_is(run_grpo, trained, tmp_path):
    start = trained("atp_latent")
    run = run_grpo(tmp_path / "run", start, max_steps=2, **DRAWN)
    before, after = (load_model(each).step_decoder.state_dict() for each in (start, run.path))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("atp_latent", {**DRAWN, "latent_gradient": "score_function"}),
        ("atp_latent", {**DRAWN, "plan_temperature": -1.0}),
        ("coconut", DRAWN),
    ],
)
def test_it_needs_a_decoder_and_the_pathwise_gradient(method, settings, run_grpo, trained, tmp_path):
    with pytest.raises(
        ValueError, match="needs a number above 0, latent_gradient pathwise, and a model with a"
    ):
        run_grpo(tmp_path / "run", trained(method), **settings)
