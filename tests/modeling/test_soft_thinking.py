"""Soft Thinking by hand without a cache; recorded, scored again, and in a continuous batch."""

import pytest
import torch

from latentplan.modeling.input_rules import input_rule
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.continuous_batching import ContinuousBatch, rows_of
from latentplan.rollout.engine import generate
from latentplan.rollout.logprobs import score
from latentplan.rollout.solve import question_batch
from latentplan.rollout.trace import Token, trace
from latentplan.training.configs import GRPOConfig
from latentplan.training.objectives import make_objective
from latentplan.training.rollout_batch import KnownAnswers, instead_of_samples


def soft_model(make_system, as_loaded, name="soft_thinking", method="cot", family="llama", **settings):
    model = as_loaded(make_system(method, family=family))
    model.reasoner.set_input_rule(name, {"width": 4, **settings})
    return model


def roll_out(model, problems, sampling, **settings):
    ids, mask = question_batch(model, [problem.question for problem in problems])
    return generate(model.reasoner, ids, mask, torch.arange(len(ids)), seed=1, sampling=sampling, **settings)


@torch.no_grad()
def by_hand(model, question, tokens, until=None, temperature=1.0, width=4):
    """Greedy tokens; after each the weighted mean of the embeddings of the most probable ones is read."""
    reasoner = model.reasoner
    embeds, soft, written = reasoner.embed(question_batch(model, [question])[0]), True, []
    matrix = reasoner.get_input_embeddings().weight
    for _ in range(tokens):
        logits = reasoner.backbone(inputs_embeds=embeds).logits[0, -1]
        token = int(logits.argmax())
        written.append(token)
        if token == reasoner.config.eos_token_id:
            break
        soft = soft and token != until
        best = logits.topk(width)
        weights = (best.values / temperature).softmax(0)
        read = (weights[:, None] * matrix[best.indices]).sum(0) if soft else matrix[token]
        embeds = torch.cat([embeds, read[None, None]], dim=1)
    return written


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("settings", [{}, {"temperature": 3.0}])
def test_greedy_tokens_are_those_by_hand(family, settings, make_system, as_loaded, mixed_problems):
    model = soft_model(make_system, as_loaded, family=family, **settings)
    plain = roll_out(as_loaded(make_system("cot", family=family)), mixed_problems, Sampling.greedy(12))
    rolled = roll_out(model, mixed_problems, Sampling.greedy(12))
    for row, problem in enumerate(mixed_problems):
        ids = rolled.answer_ids[row][rolled.answer_mask[row].bool()].tolist()
        assert ids == by_hand(model, problem.question, 12, **settings)
    assert not torch.equal(plain.answer_ids, rolled.answer_ids)


def test_it_ends_at_a_token(make_system, as_loaded, mixed_problems):
    model = soft_model(make_system, as_loaded)
    first = by_hand(model, mixed_problems[0].question, 1)[0]
    model.reasoner.set_input_rule("soft_thinking", {"width": 4, "until": first})
    rolled = roll_out(model, mixed_problems[:1], Sampling.greedy(8))
    ids = rolled.answer_ids[0][rolled.answer_mask[0].bool()].tolist()
    assert ids == by_hand(model, mixed_problems[0].question, 8, until=first)
    assert torch.equal(rolled.input_weights[0, :, 0], torch.ones(len(ids)))
    assert rolled.input_ids[0, :, 0].tolist() == ids


@pytest.mark.parametrize("name", ["soft_thinking", "gumbel_mixture"])
@pytest.mark.parametrize("method", ["cot", "coconut"])
def test_what_was_read_is_recorded_so_that_it_can_be_scored(
    name, method, make_system, as_loaded, mixed_problems
):
    model = soft_model(make_system, as_loaded, name, method)
    sampling = Sampling(temperature=1.2, max_new_tokens=7)
    rolled = roll_out(model, mixed_problems, sampling, draws=2, answers=2)
    assert rolled.input_ids.shape == (*rolled.answer_ids.shape, 4)
    scores = score(model.reasoner, rolled, sampling)
    torch.testing.assert_close(scores.answers, rolled.answer_log_probs, atol=1e-3, rtol=1e-3)
    part = rolled.select(slice(1, 3))
    scores = score(model.reasoner, part, sampling)
    torch.testing.assert_close(scores.answers, part.answer_log_probs, atol=1e-3, rtol=1e-3)
    # With the tokens themselves as inputs the log-probabilities would be others.
    rolled.input_ids = rolled.input_weights = None
    plain = score(model.reasoner, rolled, sampling)
    assert float((plain.answers - rolled.answer_log_probs).abs().max().detach()) > 0.01


def test_the_density_of_a_gumbel_mixture_integrates_to_one():
    """E[1] under the noise of one policy, reweighted to another's: its density is a density."""
    rule = input_rule("gumbel_mixture", {"width": 2})
    logits = torch.tensor([[1.0, 0.5, -50.0]]).expand(40_000, -1)
    after = rule.next_input(
        logits, logits.argmax(1), rule.memory(len(logits), logits.device), torch.arange(40_000)
    )
    torch.testing.assert_close(rule.log_prob(logits, after.ids, after.action), after.log_prob)
    other = torch.tensor([[0.8, 0.6, -50.0]]).expand(40_000, -1)
    ratio = (rule.log_prob(other, after.ids, after.action) - after.log_prob).exp()
    assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / 200


@pytest.mark.parametrize("name", ["soft_thinking", "gumbel_mixture"])
def test_rows_of_a_continuous_batch_and_a_trace_are_those_of_a_rollout(
    name, make_system, as_loaded, mixed_problems
):
    model = soft_model(make_system, as_loaded, name, method="atp_latent")
    sampling, batch = Sampling(temperature=1.0, max_new_tokens=6), ContinuousBatch(model.reasoner)
    admitted = []
    for index, problem in enumerate(mixed_problems):
        ids = question_batch(model, [problem.question])[0][0].tolist()
        admitted.append(rows_of(ids, index, 0, 2, sampling))
        batch.admit(admitted[-1])
        batch.step()
    while batch.rows:
        batch.step()
    for index, (problem, rows) in enumerate(zip(mixed_problems, admitted, strict=True)):
        ids, mask = question_batch(model, [problem.question])
        rolled = generate(
            model.reasoner, ids, mask, torch.tensor([0]), seed=index, sampling=sampling, draws=2
        )
        for row, each in enumerate(rows):
            assert each.answer_ids == rolled.answer_ids[row][rolled.answer_mask[row].bool()].tolist()
    if name == "soft_thinking":
        seen = [
            each.id
            for each in trace(model, mixed_problems[0].question, max_new_tokens=6)
            if isinstance(each, Token)
        ]
        rolled = roll_out(model, mixed_problems[:1], Sampling.greedy(6))
        assert seen == rolled.answer_ids[0][rolled.answer_mask[0].bool()].tolist()


def test_rules_are_found_by_name_and_their_settings_are_checked(make_system, tmp_path):
    reasoner = make_system("cot").reasoner
    for name, settings, message in (
        ("soft", None, "input_rule must be one of gumbel_mixture, plain, soft_thinking"),
        ("soft_thinking", {"width": 1}, "width must be a whole number of at least 2"),
        ("soft_thinking", {"temperature": 0}, "temperature must be above 0"),
        ("plain", {"width": 3}, "input_rule_settings of plain"),
    ):
        with pytest.raises(ValueError, match=message):
            reasoner.set_input_rule(name, settings)
    reasoner.set_input_rule("soft_thinking", {"width": 3})
    reasoner.save_pretrained(tmp_path)
    assert type(reasoner).from_pretrained(tmp_path).input_rule.width == 3


def test_nothing_is_drawn_at_temperature_0(make_system, as_loaded, mixed_problems):
    model = soft_model(make_system, as_loaded, "gumbel_mixture")
    ids, mask = question_batch(model, [problem.question for problem in mixed_problems])
    places, sampling = torch.arange(len(ids)), Sampling.greedy(8)
    rolled = [generate(model.reasoner, ids, mask, places, seed=seed, sampling=sampling) for seed in (0, 1)]
    assert torch.equal(rolled[0].answer_ids, rolled[1].answer_ids)
    batch = ContinuousBatch(model.reasoner)
    question = question_batch(model, [mixed_problems[0].question])[0][0].tolist()
    # Beside a row that draws, a greedy one is the greedy answer.
    (row,), warm = (
        rows_of(question, 0, 0, 1, sampling),
        rows_of(question, 0, 0, 1, Sampling(max_new_tokens=8)),
    )
    batch.admit([row, *warm])
    while batch.rows:
        batch.step()
    assert row.answer_ids == rolled[0].answer_ids[0][rolled[0].answer_mask[0].bool()].tolist()
    seen = trace(model, mixed_problems[0].question, max_new_tokens=8)
    assert [each.id for each in seen if isinstance(each, Token)] == row.answer_ids


def check_rl(model, **settings):
    config = GRPOConfig(output_dir="unused", use_cpu=True, **settings)
    make_objective(config, model.reasoner).check(model)


def test_a_rule_that_draws_is_not_reinforced(make_system, as_loaded):
    model = soft_model(make_system, as_loaded, "gumbel_mixture")
    with pytest.raises(ValueError, match="input_rule gumbel_mixture draws what is read"):
        check_rl(model)


def test_right_answers_are_scored_as_tokens(make_system, as_loaded, mixed_problems):
    """Of samples that were read as mixtures, known answers take the latents alone."""
    model = soft_model(make_system, as_loaded, method="atp_latent")
    rolled = roll_out(model, mixed_problems, Sampling(max_new_tokens=3))
    known = KnownAnswers.of_problems(model, mixed_problems)
    right = instead_of_samples(rolled, known)
    assert right.input_ids is None
    assert score(model.reasoner, right, Sampling()).answers.shape == right.answer_ids.shape
    with pytest.raises(ValueError, match="likelihood_weight scores right answers as tokens"):
        check_rl(model, latent_gradient="pathwise", objective_settings={"likelihood_weight": 1.0})
