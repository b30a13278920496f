"""`reward_settings` of a run: what they change, and what is refused."""

import json

import pytest


def test_settings_of_a_reward_reach_it(run_grpo, trained, tmp_path):
    run = run_grpo(
        tmp_path / "run",
        trained("atp_latent"),
        max_steps=1,
        save_strategy="no",
        reward_funcs=["format", "valid_chains"],
        reward_settings={"valid_chains": {"order": False, "extra_penalty": 100}},
    )
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    means = [row["rewards/valid_chains/mean"] for row in rows if "rewards/valid_chains/mean" in row]
    assert means
    assert min(means) < 0, "an untrained step decoder writes steps of no valid chain"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_settings": {"format": {}}}, "the reward 'format' has no settings"),
        ({"reward_settings": {"valid_chains": {}}}, "'valid_chains', which is none of the rewards format$"),
        (
            {"reward_funcs": None, "reward_settings": {"valid_chains": {}}},
            "none of the rewards accuracy, format, coherence_strict_if_correct",
        ),
    ],
)
def test_settings_of_no_reward_are_refused(settings, message, run_grpo, trained, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_grpo(tmp_path / "run", trained("atp_latent"), **settings)
