"""docs/metrics.md is complete: what short runs log is in its table, and what the table names is logged."""

import json
import re
from pathlib import Path

from latentplan.training.alerts import RL_RULES, SFT_RULES

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
EVALUATES = {"eval_strategy": "steps", "eval_steps": 2, "eval_dataset_size": 8, "save_strategy": "no"}


def many_letters(prompts, completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def first_column(heading):
    table = DOCUMENT.read_text().split(heading, 1)[1].split("| --- |", 1)[1]
    rows = []
    for row in table.splitlines()[1:]:
        if not row.startswith("|"):
            break
        rows.append(row.split("|")[1])
    return set(re.findall(r"`([^`]+)`", " ".join(rows)))


def logged_by(run):
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return {
        re.sub(r"^rewards/.*/(mean|frac_none)$", r"rewards/NAME/\1", name)
        for row in lines
        for name in json.loads(row)
    }


def test_the_table_names_what_is_logged(run_sft, run_grpo, trained, tmp_path):
    sft = run_sft(tmp_path / "sft", curriculum_steps=[1], on_nonfinite="skip", **EVALUATES)
    drawn = {
        "latent_gradient": "pathwise",
        "plan_temperature": 1.0,
        "likelihood_weight": 1.0,
        "reward_funcs": [f"{__name__}:many_letters"],
    }
    grpo = run_grpo(tmp_path / "grpo", trained("atp_latent"), max_steps=2, beta=0.1, **drawn, **EVALUATES)
    latent_rl = run_grpo(tmp_path / "latent_rl", trained("coconut"), max_steps=2, objective="latent_value")
    whole = {"objective": "rloo", "reward_funcs": [f"{__name__}:many_letters"]}
    rloo = run_grpo(tmp_path / "rloo", trained("atp_latent"), max_steps=2, **whole, **EVALUATES)
    logged = set.union(*map(logged_by, (sft, grpo, latent_rl, rloo)))
    assert logged == first_column("## Metrics")


def test_the_table_of_warnings_names_every_rule():
    assert first_column("## Warnings") == set(SFT_RULES) | set(RL_RULES)
