import pytest
from hypothesis import given
from hypothesis import strategies as st

from latentplan.problems.minigsm import PRESETS, generate
from latentplan.problems.problem import Problem
from latentplan.rewards import RewardSet, get_reward
from latentplan.rewards.valid_chains import ValidChains, chain_score

CHAINS = (("<<7+3=10>>", "<<10*2=20>>"), ("<<7*2=14>>", "<<3*2=6>>", "<<14+6=20>>"))
ANY_ORDER = ValidChains(order=False)


@pytest.mark.parametrize(
    ("steps", "in_order", "any_order"),
    [
        (["<<7+3=10>>", "<<10*2=20>>"], 1, 1),
        (["<<3+7=10>>", "<<2×10=20.0>>"], 1, 1),
        (["<<10*2=20>>", "<<7+3=10>>"], 1 / 2, 1),
        (["<<7*2=14>>", "<<14+6=20>>"], 2 / 3, 2 / 3),
        (["<<3*2=6>>", "<<7*2=14>>", "<<14+6=20>>"], 2 / 3, 1),
        (["<<3*2=6>><<7*2=14>>", "<<14+6=20>>"], 2 / 3, 1),
        (["<<14+6=20>>", "<<3*2=6>>", "<<7*2=14>>"], 1 / 3, 1),
        (["<<7+3=10>>", "<<7+3=10>>"], 1 / 2, 1 / 2),
        (["<<7+3=10>>", "<<1+1=2>>", "<<10*2=20>>"], 1, 1),
        (["<<7+3=10>>", "<<10*2=21>>"], 1 / 2, 1 / 2),
        (["<<7-3=10>>", "<<3*7=10>>", "no"], 0, 0),
        ([], 0, 0),
    ],
)
def test_the_share_of_the_nearest_chain(steps, in_order, any_order):
    assert chain_score(steps, CHAINS) == pytest.approx(in_order)
    assert chain_score(steps, CHAINS, ANY_ORDER) == pytest.approx(any_order)


def test_a_false_equation_of_the_same_numbers_is_another_step():
    chains = [("<<7-3=4>>", "<<9-4-2=3>>")]
    assert chain_score(["<<7-3=4>>", "<<9-2-4=3>>"], chains) == 1
    assert chain_score(["<<3-7=4>>"], chains) == 0


def test_equations_are_those_of_clock_arithmetic():
    assert chain_score(["<<5+8=2>>"], [("<<8+5=2>>",)]) == 1
    assert chain_score(["<<8+5=13>>"], [("<<8+5=2>>",)]) == 0


def test_steps_of_no_chain_are_penalised():
    settings = ValidChains(extra_penalty=0.25)
    assert chain_score(["<<7+3=10>>", "<<1+1=2>>", "gibberish"], CHAINS, settings) == 1 / 2 - 2 * 0.25
    mixed = ["<<7+3=10>>", "<<3*2=6>>", "<<10*2=20>>"]
    assert chain_score(mixed, CHAINS, settings) == 1, "3*2=6 is a step of the other chain"


def test_sentences_are_compared_as_text():
    chains = [("Tom is a terp.", "Every terp is a brim.")]
    assert chain_score(["tom is  a terp", "Every terp is a lem."], chains) == 1 / 2
    assert chain_score(["Ann has 3+4 boxes: <<4+3=7>>"], [("So <<3+4=7>>7.",)]) == 1


def test_as_a_reward_it_applies_where_chains_are_known():
    plan = list(CHAINS[0])
    known = Problem("q", CHAINS[1], "20", plans=CHAINS)
    unknown = Problem("q", CHAINS[0], "20")
    batch = {
        "prompts": ["q"] * 4,
        "completions": ["### 20"] * 4,
        "decoded_steps": [plan, plan, None, plan[:1]],
        "problems": [known, unknown, known, Problem("q", (), "20", plans=((),))],
    }
    assert get_reward("valid_chains")(**batch) == [1, None, None, None]
    table, _ = RewardSet(["valid_chains"], settings={"valid_chains": {"labelled": True}})(**batch)
    assert table[0][:2] == [1, 1]
    assert get_reward("valid_chains")(["q"], ["### 20"], answer=["20"]) == [None]
    assert get_reward("valid_chains")(["q"], ["### 20"], decoded_steps=[plan]) == [None]


@pytest.mark.parametrize("penalty", [-0.1, float("nan"), float("inf")])
def test_a_penalty_that_is_none_is_refused(penalty):
    with pytest.raises(ValueError, match="extra_penalty of reward valid_chains must be a number from 0 on"):
        RewardSet(["valid_chains"], settings={"valid_chains": {"extra_penalty": penalty}})


@pytest.mark.parametrize("preset", ["quickstart", "default"])
def test_every_valid_chain_of_minigsm_earns_all(preset):
    for problem in generate(PRESETS[preset], split="train", count=30, seed=3):
        assert {chain_score(chain, problem.plans) for chain in (problem.steps, *problem.plans)} == {1}


STEPS = st.sampled_from([*CHAINS[0], *CHAINS[1], "<<1+1=2>>", "<<7+3=11>>", "no"])


@given(st.lists(STEPS, max_size=6), st.floats(0, 1))
def test_order_and_penalties_only_take_away(steps, penalty):
    in_order, any_order = chain_score(steps, CHAINS), chain_score(steps, CHAINS, ANY_ORDER)
    assert 0 <= in_order <= any_order <= 1
    assert chain_score([*steps, "<<7+3=10>>"], CHAINS) >= in_order
    settings = ValidChains(extra_penalty=penalty)
    before, after = (chain_score(each, CHAINS, settings) for each in (steps, [*steps, "<<5+5=10>>"]))
    assert after == pytest.approx(before - penalty)
    valid = [step for step in steps if step in CHAINS[0] + CHAINS[1]]
    assert chain_score(valid, CHAINS, settings) == pytest.approx(in_order)
