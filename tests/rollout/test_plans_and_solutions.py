import pytest
import torch

from latentplan.modeling import counter_rng
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.plan_decoding import decode_plans, distinct, written_plan
from latentplan.rollout.solve import batches_by_length, roll_out, solve


@pytest.mark.parametrize(
    ("completion", "separator", "plan"),
    [
        ("<<1+2=3>>\n<<3*2=6>>\n### 6", "\n", ["<<1+2=3>>", "<<3*2=6>>"]),
        ("### 6", "\n", []),
        ("", "\n", []),
        ("<<1+2=3>>\n<<3*", "\n", ["<<1+2=3>>", "<<3*"]),
        ("First, add.\nThen, double.\n### 6", "\n", ["First, add.", "Then, double."]),
        ("<<1+2=3>><<3*2=6>>### 6", "", ["<<1+2=3>>", "<<3*2=6>>"]),
        ("<<1+2=3>> <<3*2=6>> ### 6", " ", ["<<1+2=3>>", "<<3*2=6>>"]),
        ("some words ### 6", " ", ["some words"]),
        ("### 6 ### 7", "\n", []),
    ],
)
def test_the_written_plan_is_what_stands_before_the_answer(completion, separator, plan):
    assert written_plan(completion, separator, "### ") == plan


@pytest.fixture(scope="module")
def taught(make_system, mixed_problems, overfit, as_loaded):
    system = make_system("atp_latent", initial_log_variance=-4.0)
    overfit(system, mixed_problems, bound=0.1, steps=400)
    return as_loaded(system)


def test_plans_are_read_from_the_slots_in_use_alone(taught, mixed_problems):
    (solution,) = solve(taught, [mixed_problems[2].question], Sampling.greedy(16))[0]
    assert solution.plan == list(mixed_problems[2].steps)
    latents = torch.randn(3, 6, 32)
    mask = torch.tensor([[1] * 6, [0] * 6, [1, 1, 0, 0, 0, 0]])
    plans = decode_plans(taught.step_decoder, taught.tokenizer, latents, mask, max_new_tokens=12)
    assert [len(plan) for plan in plans] == [3, 0, 1]
    latents[2, 2:] = 0
    again = decode_plans(taught.step_decoder, taught.tokenizer, latents[2:], mask[2:], max_new_tokens=12)
    assert again == plans[2:]
    nothing = decode_plans(taught.step_decoder, taught.tokenizer, latents[:2], torch.zeros(2, 6).long())
    assert nothing == [[], []]


def test_batches_hold_questions_of_similar_length():
    assert batches_by_length(["ccc", "a", "bb", "d"], 3) == [[1, 3, 2], [0]]
    assert batches_by_length([], 3) == []


def test_a_batch_holds_whole_groups(make_system, as_loaded, mixed_problems):
    loaded = as_loaded(make_system("atp_latent"))
    questions = [problem.question for problem in mixed_problems]

    def places(batch_size):
        rolled = roll_out(
            loaded, questions, Sampling(max_new_tokens=2), seed=0, num_generations=3, batch_size=batch_size
        )
        return [(batch.indices, batch.trajectories.num_tokens.shape[0]) for batch in rolled]

    assert places(7) == [(pair, 6) for pair in batches_by_length(questions, 2)]
    assert places(1) == [(one, 3) for one in batches_by_length(questions, 1)], "a group is not divided"


@pytest.mark.parametrize("method", ["cot", "no_cot", "coconut", "atp_latent"])
def test_solutions_do_not_depend_on_the_batch_size(method, make_system, as_loaded, mixed_problems):
    loaded = as_loaded(make_system(method))
    questions = [problem.question for problem in mixed_problems]
    expected = solve(loaded, questions, Sampling(max_new_tokens=8), seed=4, num_generations=3)
    done = []
    for size in (1, 4):
        assert expected == solve(
            loaded,
            questions,
            Sampling(max_new_tokens=8),
            seed=4,
            num_generations=3,
            batch_size=size,
            on_progress=done.append,
        )
    assert sum(done) == 2 * len(questions)
    assert [len(solutions) for solutions in expected] == [3] * 6
    assert expected != solve(loaded, questions, Sampling(max_new_tokens=8), seed=5, num_generations=3)


def test_a_solution_says_how_many_tokens_it_took(taught, mixed_problems):
    for problem, (solution,) in zip(
        mixed_problems,
        solve(taught, [each.question for each in mixed_problems], Sampling.greedy(16)),
        strict=True,
    ):
        assert solution.completion == f"### {problem.answer}"
        assert solution.num_latents == 2 * min(3, len(problem.steps))
        assert solution.num_tokens == solution.num_latents + 2  # the marker and the number, without the end
        assert solution.finished


def test_an_unfinished_answer_counts_every_token(taught, mixed_problems):
    (solution,) = solve(taught, [mixed_problems[0].question], Sampling.greedy(1))[0]
    assert not solution.finished
    assert (solution.num_latents, solution.num_tokens) == (2, 3)


def test_distinct_rows_are_found_and_put_back():
    torch.manual_seed(0)
    different = torch.randn(5, 7)
    which = torch.tensor([3, 0, 0, 4, 1, 3, 2, 2, 2])
    rows, index = distinct(different[which])
    assert len(rows) == 5
    assert torch.equal(rows[index], different[which])


def test_different_rows_of_one_hash_are_kept_apart(monkeypatch):
    monkeypatch.setattr(counter_rng, "mix", torch.zeros_like)
    rows = torch.randn(4, 3)
    found, index = distinct(rows)
    assert torch.equal(found[index], rows)


def test_equal_steps_are_decoded_once(taught, mixed_problems, monkeypatch):
    """Without noise all samples of a question are one chain of latents."""
    sizes, decode = [], taught.step_decoder.decode

    def watched(latents, *rest):
        sizes.append(len(latents))
        return decode(latents, *rest)

    monkeypatch.setattr(taught.step_decoder, "decode", watched)
    question = [mixed_problems[2].question]
    (alone,) = solve(taught, question, Sampling.greedy(16))[0]
    group = solve(taught, question, Sampling.greedy(16), num_generations=6)[0]
    assert [solution.plan for solution in group] == [alone.plan] * 6
    assert sizes == [2, 2]
