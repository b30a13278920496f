"""Training cost by hand: parameters times tokens."""

import json

import pytest

from latentplan.training.flops import token_flops


def count(part):
    return sum(parameter.numel() for parameter in part.parameters())


def test_a_token_costs_six_times_the_parameters_that_multiply(make_system):
    tied = make_system("atp_latent", backbone={"tie_word_embeddings": True}).reasoner
    assert token_flops(tied) == (2 * count(tied), 6 * count(tied))
    assert token_flops(tied, recomputes=True).training == 8 * count(tied)
    untied = make_system("atp_latent", backbone={"tie_word_embeddings": False}).reasoner
    looked_up = untied.get_input_embeddings().weight.numel()
    assert token_flops(untied).forward == 2 * (count(untied) - looked_up)
    assert token_flops(None) == (0, 0)


def test_frozen_weights_cost_no_gradient_of_their_own(make_system):
    part = make_system("cot", backbone={"tie_word_embeddings": True}).reasoner.requires_grad_(False)
    assert token_flops(part) == (2 * count(part), 4 * count(part))


def test_a_run_records_its_cost_through_an_interruption(run_sft, tmp_path):
    run = run_sft(tmp_path / "cot", method="cot", curriculum_steps=[4])
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    record = json.loads((run.path / "run.json").read_text())
    assert record["flops"] == rows[-1]["flops"]
    assert record["steps"] == 4
    # Every position is read by the reasoner alone, so the cost is in proportion to the tokens.
    prices = {row["flops"] / row["num_tokens"] for row in rows}
    assert len(prices) == 1
    assert prices.pop() <= 6 * record["num_parameters"]


def test_the_step_decoder_and_codi_s_teacher_cost_extra(make_system, make_batch, mixed_problems):
    coconut, codi = make_system("coconut"), make_system("codi")
    batch = make_batch(codi, mixed_problems)
    assert codi.method.tokens_read(batch) == coconut.method.tokens_read(batch) + int(
        batch["question_mask"].sum()
    )


def test_rl_pays_for_its_rollouts(run_grpo, trained, tmp_path):
    once = run_grpo(tmp_path / "once", trained("coconut"), max_steps=2, save_steps=2)
    again = run_grpo(tmp_path / "again", trained("coconut"), max_steps=2, num_iterations=2, save_steps=2)
    records = [json.loads((run.path / "run.json").read_text()) for run in (once, again)]
    # An update costs 6 for each parameter and token, a rollout 2: two updates each, one rollout or two.
    assert records[1]["flops"] / records[0]["flops"] == pytest.approx((2 * 6 + 2) / (2 * 8), rel=0.15)
