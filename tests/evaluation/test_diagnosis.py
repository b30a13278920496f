"""Diagnoses of small models: what applies to whom, fixed noise for latents, verdicts from given answers."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from latentplan.evaluation.diagnosis.evaluated_model import EvaluatedModel
from latentplan.evaluation.diagnosis.examine import FINDINGS, examine
from latentplan.evaluation.diagnosis.faithfulness import MOVED, NEITHER, STAYED, collect_pairs, edited_steps
from latentplan.evaluation.diagnosis.findings import FAILED, NOT_APPLICABLE, NOTED, SOUND, UNCLEAR
from latentplan.evaluation.diagnosis.overthinking import overthinking
from latentplan.evaluation.diagnosis.plan_coverage import plan_coverage
from latentplan.evaluation.diagnosis.posterior_collapse import posterior_collapse
from latentplan.evaluation.diagnosis.silent_failure import silent_failure
from latentplan.evaluation.diagnosis.stop_calibration import decisions
from latentplan.modeling.thinking import LatentChain
from latentplan.problems.counterfactuals import Counterfactual, counterfactuals
from latentplan.problems.problem import Problem
from latentplan.rollout.solve import GreedyChains, Solution

SHORT = {"max_new_tokens": 8, "num_generations": 2}


def partners_of(problems):
    return counterfactuals("minigsm:clock", problems)


@pytest.fixture(scope="module")
def fixed_noise(make_system, make_batch, mixed_problems, overfit, as_loaded):
    """A model that knows six problems by heart, and whose latents are noise that never changes."""
    system = make_system("pause")
    embedding = system.reasoner.latent_head.embedding
    torch.manual_seed(1)
    embedding.data.normal_()
    embedding.requires_grad_(False)
    assert overfit(system, mixed_problems, bound=0.02, steps=300) < 0.02
    return as_loaded(system)


def test_latents_of_fixed_noise_are_a_silent_failure(fixed_noise, mixed_problems):
    # Seven times the six that it knows: of six alone nothing could be said.
    found = examine(fixed_noise, mixed_problems * 7, [None] * 42, **SHORT)
    assert found.accuracy.estimate == 1
    silent = found.finding("silent_failure")
    assert silent.status == FAILED
    assert silent.figure("accuracy: another question's").estimate == 1
    assert silent.figure("lost: another question's").estimate == 0
    assert silent.figure("answers that change: another question's").estimate == 0
    assert found.failed == ["silent_failure", "posterior_collapse"]
    few = examine(fixed_noise, mixed_problems, [None] * 6, **SHORT)
    assert few.finding("silent_failure").status == UNCLEAR


def test_latents_of_fixed_noise_have_collapsed(fixed_noise, clock_problems):
    found = examine(fixed_noise, clock_problems[:40], [None] * 40, **SHORT)
    collapse = found.finding("posterior_collapse")
    assert collapse.status == FAILED
    assert collapse.verdict == "6 of 6 slots are the same whatever the question is: 1, 2, 3, 4, 5, 6"
    assert collapse.figure("slot 1: effective rank").estimate == 0


POINTS = {"silent_failure", "overthinking", "reward_variance"}


@pytest.mark.parametrize(
    ("method", "applicable"),
    [
        ("cot", {"plan_coverage"}),
        ("no_cot", set()),
        ("coconut", POINTS),
        ("colar", POINTS),
        ("sim_cot", {*POINTS, "reconstruction", "plan_coverage"}),
    ],
)
def test_what_does_not_apply_is_said_in_one_line(make_system, as_loaded, clock_problems, method, applicable):
    model = as_loaded(make_system(method))
    found = examine(model, clock_problems[:8], [None] * 8, **SHORT)
    assert [finding.name for finding in found.findings] == list(FINDINGS)
    others = {finding.name for finding in found.findings if finding.status != NOT_APPLICABLE}
    # An untrained CoLaR may use one latent for each question, and then there is nothing to reorder.
    assert others - {"reading"} == applicable
    for finding in found.findings:
        assert finding.verdict
        assert "\n" not in finding.verdict
        assert bool(finding.figures) == (finding.status != NOT_APPLICABLE)


def test_batch_size_changes_no_finding(taught_model, problems):
    partners = partners_of(problems)
    found = [examine(taught_model, problems, partners, batch_size=size, seed=4, **SHORT) for size in (5, 100)]
    for one, other in zip(found[0].findings, found[1].findings, strict=True):
        assert (one.name, one.status) == (other.name, other.status)
        for figure, its in zip(one.figures, other.figures, strict=True):
            assert figure.name == its.name
            assert figure.estimate == pytest.approx(its.estimate, rel=1e-3, abs=1e-4)


def test_model_that_knows_its_problems(taught_model, problems):
    known = problems[:4]
    found = examine(taught_model, known, [None] * 4, benchmark="known", **SHORT)
    assert found.finding("reconstruction").figure("teacher-encoded: exact").estimate == 1
    assert found.finding("plan_coverage").figure("greedy plan: the labelled one").estimate == 1
    assert found.finding("stop_calibration").figure("stops where a valid chain ends").estimate == 1
    assert found.finding("stop_calibration").status in (SOUND, UNCLEAR)  # of four problems
    assert (found.benchmark, found.num_problems, found.method) == ("known", 4, "atp_latent")


def test_one_problem_or_none(taught_model, problems):
    found = examine(taught_model, problems[:1], [None], **SHORT)
    assert "no other question" in found.finding("silent_failure").verdict
    assert found.finding("faithfulness").status == NOT_APPLICABLE
    with pytest.raises(ValueError, match="no problems to diagnose with"):
        examine(taught_model, [], [])
    with pytest.raises(ValueError, match="2 problems need as many partners"):
        examine(taught_model, problems[:2], [None])


def test_own_answers_serve_where_right_ones_are_not_known(taught_model, problems):
    """The first four questions are known by heart, so beside each other they are pairs."""
    known = problems[:4]
    others = [known[1], known[0], known[3], known[2]]
    partners = [Counterfactual(other.question) for other in others]
    evaluated = EvaluatedModel(taught_model, known, partners, max_new_tokens=8)
    pairs = collect_pairs(evaluated)
    kept = [place for place in range(4) if known[place].answer != others[place].answer]
    assert sorted(pairs.indices) == kept
    for place, answer in zip(pairs.indices, pairs.other_answers, strict=True):
        assert answer == others[place].answer
    wrong = [Counterfactual(other.question, answer="77") for other in others]
    assert collect_pairs(EvaluatedModel(taught_model, known, wrong, max_new_tokens=8)).indices == []


def test_edits_of_a_taught_model_have_three_outcomes(taught_model, problems):
    known = problems[:4]
    partners = [Counterfactual(other.question) for other in (known[1], known[0], known[3], known[2])]
    finding = FINDINGS["faithfulness"](EvaluatedModel(taught_model, known, partners, max_new_tokens=8))
    shares = [
        finding.figure(f"all latents spliced: {outcome}").estimate for outcome in (MOVED, STAYED, NEITHER)
    ]
    assert sum(shares) == pytest.approx(1)
    assert finding.status == UNCLEAR  # so few pairs decide nothing


def test_stop_decisions_end_with_the_first_stop(taught_model, problems):
    known = problems[:4]
    evaluated = EvaluatedModel(taught_model, known, [None] * 4, max_new_tokens=8)
    needed = {row: min(3, len(problem.steps)) for row, problem in enumerate(evaluated.ordered)}
    rows = decisions(evaluated, needed)
    assert len(rows) == sum(min(steps + 1, 3) for steps in needed.values())
    due = rows[:, 1] == 1
    assert rows[due, 0].min() > 0.5 > rows[~due, 0].max()


def answered(right, exchanged):
    """A evaluated whose answers are given: whether each is right, and what exchanged latents make of it."""
    count = len(right)
    completions = [f"### {number}" for number in range(count)]
    evaluated = SimpleNamespace(
        has_latents=True,
        problems=[None] * count,
        ordered=[Problem("How many?", (), "0")] * count,
        correct=right,
        exchanged=exchanged,
        greedy=SimpleNamespace(solutions=[Solution(text, None, 0, 0, True) for text in completions]),
        completions=lambda intervention: completions,
        judge=lambda texts: [text == "### right" for text in texts],
        model=SimpleNamespace(reasoner=SimpleNamespace(config=SimpleNamespace(method="x"))),
    )
    return silent_failure(evaluated)


@pytest.mark.parametrize(
    ("right", "kept", "status"),
    [
        (200, 20, SOUND),  # falls from 100% to 10%
        (200, 200, FAILED),
        (200, 196, FAILED),  # 2 points: surely less than a tenth
        (200, 180, UNCLEAR),  # ten points: the interval holds the threshold
        (20, 0, SOUND),  # from 10% to 0%: little, but all of it
        (0, 0, UNCLEAR),  # nothing to lose
    ],
)
def test_silent_failure_by_what_an_exchange_costs(right, kept, status):
    hits = [place < right for place in range(200)]
    exchanged = ["### right" if place < kept else "### wrong" for place in range(200)]
    assert answered(hits, exchanged).status == status


def test_plan_coverage_counts_labelled_valid_and_other_plans(tiny_model, problems):
    one, other = ("<<1+2=3>>", "<<3+4=7>>"), ("<<1+4=5>>", "<<5+2=7>>")
    problem = Problem("q", one, "7", plans=(one, other))
    plans = [one, other, other, ("<<1+2=3>>",), ()]
    evaluated = SimpleNamespace(
        model=tiny_model("cot"),
        ordered=[problem] * 5,
        greedy=SimpleNamespace(solutions=[Solution("### 7", list(plan), 0, 0, True) for plan in plans]),
        correct=[True, True, False, True, False],
        num_generations=1,
    )
    finding = plan_coverage(evaluated)
    shares = {figure.name: figure.estimate for figure in finding.figures}
    assert shares["greedy plan: the labelled one"] == pytest.approx(1 / 5)
    assert shares["greedy plan: another valid one"] == pytest.approx(2 / 5)
    assert shares["greedy plan: none of them"] == pytest.approx(2 / 5)
    assert shares["right answers with a valid plan"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_collapse_by_hand_in_the_head_s_own_units(scale):
    # 40 questions, one slot: the first dimension is ±1 with σ = 1/4, the second always 0 with σ = 1.
    mean = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]]).repeat(20, 1, 1) * scale
    log_variance = torch.tensor([1 / 16, 1.0]).log().expand(40, 1, 2) + 2 * math.log(scale)
    evaluated = SimpleNamespace(
        has_latents=True,
        distributions=LatentChain(mean, mean, log_variance, torch.ones(40, 1)),
        model=SimpleNamespace(reasoner=SimpleNamespace(latent_head=SimpleNamespace(output_scale=scale))),
    )
    finding = posterior_collapse(evaluated)
    variance = 40 / 39
    assert finding.figure("slot 1: active units").estimate == 0.5
    assert finding.figure("slot 1: information, bits at most").estimate == pytest.approx(
        0.5 * math.log2(1 + 16 * variance), rel=1e-4
    )
    assert finding.figure("slot 1: KL to the prior, nats").estimate == pytest.approx(
        0.5 * (1 + 1 / 16 - 1 + math.log(16)), rel=1e-4
    )
    assert finding.figure("slot 1: effective rank").estimate == pytest.approx(1)
    assert finding.status == SOUND
    wider = replace(evaluated.distributions, log_variance=log_variance + math.log(64))
    evaluated.distributions = wider  # σ = 2 beside ±1: a sixth of a bit
    assert posterior_collapse(evaluated).status == FAILED


def test_edited_and_last_step_by_the_labels_or_by_what_the_decoder_reads(tiny_model, problems):
    one, two = ("<<1+2=3>>", "<<3+4=7>>"), ("<<1+2=3>>", "<<3+3=6>>")
    known = [Problem("a", one, "7"), Problem("b", one, "7"), Problem("c", one, "7")]
    partners = [Counterfactual("a'", "6", two), Counterfactual("b'", "6", one), Counterfactual("c'", "6")]
    latents, mask = torch.zeros(3, 6, 16), torch.ones(3, 6)
    own = GreedyChains([0, 1, 2], latents, mask, [["x", "y", "z"]] * 3)
    foreign = GreedyChains([0, 1, 2], latents, mask, [["x", "q", "z"], ["x", "y", "z"], ["x"]])
    by_labels = EvaluatedModel(tiny_model("coconut"), known, partners)
    assert edited_steps(by_labels, [0, 1, 2], own, foreign) == ([1, None, None], [1, 1, 1])
    by_plans = EvaluatedModel(tiny_model("atp_latent"), known, partners)
    assert edited_steps(by_plans, [0, 1, 2], own, foreign) == ([1, None, None], [2, 2, 2])
    by_tokens = EvaluatedModel(tiny_model("colar"), known, partners)
    assert edited_steps(by_tokens, [0, 1, 2], own, foreign)[0] == [None] * 3
    shorter = replace(foreign, slot_mask=torch.zeros(3, 6))
    assert edited_steps(by_plans, [0, 1, 2], own, shorter)[0] == [None] * 3


@pytest.mark.parametrize(
    ("latents", "can_stop", "status"),
    [
        ([1, 2, 3, 4], True, SOUND),
        ([4, 4, 4, 4], True, FAILED),  # it could stop, and does not
        ([4, 4, 4, 4], False, NOTED),
        ([4, 3, 2, 1], True, FAILED),
        ([3, 4, 5, 6], True, FAILED),  # two steps too many, whatever the question
    ],
)
def test_overthinking_by_hand(latents, can_stop, status):
    asked = [Problem("q", ("s",) * steps, "7") for steps in (1, 2, 3, 4)] * 10
    config = SimpleNamespace(method="x", max_latent_steps=8)
    evaluated = SimpleNamespace(
        has_latents=True,
        latents_are_steps=True,
        ordered=asked,
        used_steps=latents * 10,
        run=None,
        greedy=SimpleNamespace(solutions=[Solution("", None, n, n + 2, True) for n in latents * 10]),
        model=SimpleNamespace(reasoner=SimpleNamespace(config=config, stop_head=can_stop or None)),
    )
    assert overthinking(evaluated).status == status


def test_partners_that_the_model_cannot_read_are_left_out(make_system, as_loaded, clock_problems):
    model = as_loaded(make_system("atp_latent"))
    model.processor.refuses_unknown_words = True
    problems = clock_problems[:3]
    partners = [Counterfactual(f"{problem.question} bananas", None) for problem in problems]
    found = examine(model, problems, partners, **SHORT)
    faithful = next(each for each in found.findings if each.name == "faithfulness")
    assert "no question has a partner" in faithful.verdict
