from latentplan.rewards import RewardSet
from latentplan.rewards.answer_rewards import short_latents, short_latents_if_solved

RIGHT, WRONG = "### 9", "### 8"


def group(prompt, *trajectories):
    """(prompt, completion, latents used) for each trajectory."""
    return [(prompt, completion, length) for completion, length in trajectories]


def columns(rows, answer="9"):
    prompts, completions, lengths = (list(column) for column in zip(*rows, strict=True))
    return {
        "prompts": prompts,
        "completions": completions,
        "num_latents": lengths,
        "answer": [answer] * len(rows),
    }


def test_the_shorter_of_the_right_ones_by_hand():
    """Right ones of 2, 4 and 8 latents: mean 14/3, range 6; the wrong one counts for nothing."""
    rows = group("a", (RIGHT, 2), (WRONG, 1), (RIGHT, 4), (RIGHT, 8))
    values = short_latents(**columns(rows))
    assert [round(value, 6) for value in values] == [0.444444, 0.0, 0.111111, -0.555556]
    assert abs(sum(values)) < 1e-12


def test_questions_are_judged_apart():
    rows = group("a", (RIGHT, 2), (RIGHT, 4)) + group("b", (RIGHT, 8), (RIGHT, 6))
    assert short_latents(**columns(rows)) == [0.5, -0.5, -0.5, 0.5]


def test_nothing_to_gain_where_all_are_equally_long_or_wrong():
    rows = group("a", (RIGHT, 3), (RIGHT, 3)) + group("b", (WRONG, 8), (WRONG, 6)) + group("c", (RIGHT, 2))
    assert short_latents(**columns(rows)) == [0.0] * 5


def test_where_a_question_is_not_solved_longer_ones_earn_more():
    solved, unsolved = group("a", (RIGHT, 2), (RIGHT, 4)), group("b", (RIGHT, 2), (RIGHT, 4), (WRONG, 3))
    assert short_latents_if_solved(**columns(solved + unsolved)) == [0.5, -0.5, -0.5, 0.5, 0.0]


def test_it_does_not_apply_without_latents_or_references():
    rows = columns(group("a", (RIGHT, 2), (RIGHT, 4)))
    for reward in (short_latents, short_latents_if_solved):
        assert reward(rows["prompts"], rows["completions"], answer=rows["answer"]) == [None, None]
        assert reward(rows["prompts"], rows["completions"], num_latents=[2, 4]) == [None, None]


def test_both_have_names():
    rewards = RewardSet(["accuracy", "short_latents", "short_latents_if_solved"], [1.0, 0.1, 0.0])
    assert rewards(**columns(group("a", (RIGHT, 2), (RIGHT, 4)))).totals == [1.05, 0.95]
