import pytest
import torch

from latentplan.encoding.tokenizers import train_byte_level_bpe
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.decoded_text import decode_steps, texts_of
from latentplan.rollout.edits import Edit
from latentplan.rollout.solve import solve
from latentplan.rollout.trace import LatentStep, Token, trace
from latentplan.serving.inspector.inspected_model import InspectedModel
from latentplan.serving.inspector.views import ask, chains_of, intervene, tally, votes

QUESTION = "the counter shows 2 . it is tripled . what does it show ?"
METHODS = ["atp_latent", "coconut", "codi", "cot", "no_cot", "colar", "pause"]


@pytest.mark.parametrize("method", METHODS)
def test_walk_is_the_greedy_trajectory_of_the_engine(make_inspected, method):
    model = make_inspected(method).model
    ((solution,),) = solve(model, [QUESTION], Sampling.greedy(12))
    *_, done = ask(make_inspected(method), QUESTION, max_new_tokens=12)
    assert done["completion"] == solution.completion
    assert (done["num_latents"], done["num_tokens"]) == (solution.num_latents, solution.num_tokens)
    assert done["finished"] == solution.finished
    plan = done["plan"] and [step["text"] for step in done["plan"]["steps"]]
    assert plan == solution.plan


def test_asking_shows_the_plan_its_confidence_and_its_links(learnt, learnt_problems):
    _, long = learnt_problems
    events = list(ask(learnt, long.question, reference=long.answer))
    steps = [event for event in events if event["event"] == "step"]
    assert tuple(step["decoded"]["text"] for step in steps) == long.steps
    for step in steps:
        product = 1.0
        for piece in step["decoded"]["pieces"]:
            product *= piece["probability"]
        assert step["decoded"]["probability"] <= product
        assert step["stop"] < 0.5
        assert all(latent["norm"] > 0 and latent["sigma"] > 0 for latent in step["latents"])
    written = "".join(event["text"] for event in events if event["event"] == "token")
    done = events[-1]
    assert written.strip() == done["completion"] == f"### {long.answer}"
    assert (done["answer"], done["correct"], done["finished"]) == (long.answer, True, True)
    assert done["plan"]["links"][-1]["end"] is None
    assert done["num_latents"] == 6


def test_the_stop_head_ends_the_chain_with_its_probability(learnt, learnt_problems):
    short, _ = learnt_problems
    kinds = [event["event"] for event in ask(learnt, short.question)]
    assert kinds[:2] == ["step", "stop"]
    (stop,) = [event for event in ask(learnt, short.question) if event["event"] == "stop"]
    assert stop["probability"] > 0.5


def test_probability_of_a_decoded_step_is_the_decoder_s(learnt, learnt_problems):
    (chain,) = chains_of(learnt.model, [learnt_problems[1].question])
    decoder = learnt.model.step_decoder
    for latents, decoded in zip(chain, decode_steps(decoder, learnt.model.tokenizer, chain), strict=True):
        ids = decoder.decode(latents.unsqueeze(0))
        log_probs = torch.log_softmax(decoder(latents.unsqueeze(0), ids), dim=-1)
        chosen = log_probs.gather(2, ids.unsqueeze(2)).sum()
        assert decoded.probability == pytest.approx(float(chosen.detach().exp()), rel=1e-4)
        assert "".join(piece.text for piece in decoded.pieces).strip() == decoded.text


def test_written_steps_of_a_chain_of_thought_are_shown_with_their_tokens(
    make_system, as_loaded, overfit, learnt_problems
):
    _, long = learnt_problems
    system = make_system("cot")
    overfit(system, [long], bound=0.02, steps=200)
    *_, done = ask(InspectedModel("cot", as_loaded(system), 11), long.question)
    assert tuple(step["text"] for step in done["written"]) == long.steps
    for step in done["written"]:
        assert "".join(piece["text"] for piece in step["pieces"]).strip() == step["text"]
        assert 0.5 < step["probability"] <= 1
    assert done["num_latents"] == 0


def test_latents_without_a_decoder_show_what_the_language_model_would_have_written(make_inspected):
    first = next(ask(make_inspected("coconut"), QUESTION))
    assert first["decoded"] is None
    (top, _) = first["next_words"]
    assert len(top) == 3
    assert top[0]["probability"] >= top[1]["probability"] >= top[2]["probability"]


def test_given_latents_are_used_and_the_model_goes_on_after_them(learnt, learnt_problems):
    (chain,) = chains_of(learnt.model, [learnt_problems[1].question])
    seen = list(trace(learnt.model, learnt_problems[1].question, max_new_tokens=8, given=chain[:1]))
    steps = [each for each in seen if isinstance(each, LatentStep)]
    assert [step.given for step in steps] == [True, False, False]
    assert torch.allclose(torch.stack([step.latents for step in steps]), chain, atol=1e-4)
    zeros = torch.zeros_like(chain)
    seen = list(trace(learnt.model, learnt_problems[1].question, max_new_tokens=1, given=zeros))
    assert all(not step.latents.any() for step in seen if isinstance(step, LatentStep))
    assert sum(isinstance(each, Token) for each in seen) == 1


def test_interventions_beside_the_intact_answer(learnt, learnt_problems):
    short, long = learnt_problems
    edits = [
        Edit("splice", question=short.question),
        Edit("keep", (0,)),
        Edit("swap", (1, 2)),
        Edit("noise", (1,), regenerate=True),
    ]
    result = intervene(learnt, long.question, edits, reference=long.answer)
    assert (result["intact"]["answer"], result["intact"]["correct"]) == (long.answer, True)
    assert [each["num_steps"] for each in result["outcomes"][:3]] == [1, 0, 3]
    spliced, nothing, swapped, _ = result["outcomes"]
    texts = [step["text"] for step in swapped["plan"]["steps"]]
    assert texts == [long.steps[1], long.steps[0], long.steps[2]]
    assert [step["text"] for step in spliced["plan"]["steps"]] == list(short.steps)
    assert nothing["plan"]["steps"] == []
    (other,) = result["others"]
    assert (other["label"], other["answer"], other["correct"]) == (short.question, short.answer, None)


def test_intervention_on_a_model_without_latents_is_refused(make_inspected):
    with pytest.raises(ValueError, match="has no latents"):
        intervene(make_inspected("cot"), QUESTION, [Edit("zero", (1,))])


def test_thinking_on_after_a_deletion_is_refused(learnt, learnt_problems):
    with pytest.raises(ValueError, match="regenerated as they were"):
        intervene(learnt, learnt_problems[1].question, [Edit("delete", (1,), regenerate=True)])


def test_votes_add_up_and_are_those_of_the_samples(learnt, learnt_problems):
    _, long = learnt_problems
    sampling = Sampling(1.5, 4.0, 8)
    (solutions,) = solve(learnt.model, [long.question], sampling, seed=3, num_generations=24)
    result = tally(learnt, long.question, solutions, long.answer)
    assert result["answers"] == votes(solutions, long.answer)
    assert sum(vote["votes"] for vote in result["answers"]) == 24
    assert sum(plan["votes"] for plan in result["plans"]) == 24
    assert len(result["plans"]) == len({tuple(solution.plan) for solution in solutions}) > 1
    numbers = [plan["votes"] for plan in result["plans"]]
    assert numbers == sorted(numbers, reverse=True)


def test_models_without_a_readable_plan_have_votes_but_no_plans(make_inspected):
    coconut = make_inspected("coconut")
    (solutions,) = solve(coconut.model, [QUESTION], Sampling(max_new_tokens=4), num_generations=4)
    result = tally(coconut, QUESTION, solutions)
    assert result["plans"] is None
    assert sum(vote["votes"] for vote in result["answers"]) == 4


def test_tokens_within_a_character_wait_until_it_is_whole():
    tokenizer = train_byte_level_bpe(["a"], vocab_size=300)
    ids = tokenizer.encode("aéb")
    assert len(ids) == 4
    assert list(texts_of(tokenizer, ids)) == ["a", "", "é", "b"]
