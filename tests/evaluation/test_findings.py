"""Verdicts from figures, figures from data, and the JSON file: numbers worked out by hand."""

import json
import math

import numpy as np
import pytest
import torch

from latentplan.evaluation.diagnosis import findings as figures
from latentplan.evaluation.diagnosis.findings import (
    FAILED,
    NOTED,
    SOUND,
    UNCLEAR,
    Diagnosis,
    Figure,
    Finding,
    at_least,
    at_most,
    not_applicable,
    worst,
)
from latentplan.evaluation.diagnosis.overthinking import over_training
from latentplan.evaluation.diagnosis.posterior_collapse import effective_rank
from latentplan.evaluation.diagnosis.stop_calibration import calibration_error
from latentplan.evaluation.result_tables import diagnosis_markdown, diagnosis_table
from latentplan.evaluation.results import Estimate


@pytest.fixture
def diagnosis():
    findings = [
        Finding("a", SOUND, "fine", "above 1", [Figure("x", 0.5, 0.25, 0.75, "share", 8), Figure("y", 2.0)]),
        Finding("b", FAILED, "a | b"),
        not_applicable("c", "no decoder"),
    ]
    return Diagnosis(
        model="runs/x",
        method="coconut",
        benchmark="minigsm:clock",
        data_fingerprint="f",
        num_problems=8,
        seed=0,
        accuracy=Estimate(0.5, 0.25, 0.75),
        findings=findings,
        created="now",
        device="cpu",
        seconds=1.0,
    )


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [(0.3, 0.6, SOUND, FAILED), (0.0, 0.2, FAILED, SOUND), (0.1, 0.4, UNCLEAR, UNCLEAR)],
)
def test_only_an_interval_beyond_the_threshold_decides(low, high, above, below):
    figure = Figure("x", (low + high) / 2, low, high)
    assert (at_least(figure, 0.25), at_most(figure, 0.25)) == (above, below)


def test_without_an_interval_the_estimate_decides_and_without_any_nothing():
    assert (at_least(Figure("x", 0.5), 0.5), at_most(Figure("x", 0.5), 0.5)) == (SOUND, SOUND)
    assert (at_least(Figure("x", None), 0.5), at_most(Figure("x", None), 0.5)) == (UNCLEAR, UNCLEAR)
    assert worst(SOUND, UNCLEAR, FAILED) == FAILED
    assert worst(SOUND, UNCLEAR) == UNCLEAR
    assert worst(SOUND, SOUND) == SOUND


def test_figures_as_text():
    assert Figure("x", 0.958, 0.944, 0.969, "share").text == "95.8% [94.4, 96.9]"
    assert Figure("x", 2.716).text == "2.72"
    assert Figure("x", None).text == "–"


def test_drop_is_paired():
    before, after = [True] * 8 + [False] * 2, [True] * 4 + [False] * 5 + [True]
    found = figures.drop("x", before, after)
    assert found.estimate == pytest.approx((4 - 1) / 10)
    assert found.low < found.estimate < found.high
    # Where all are the same a bootstrap would be certain; exact is 1 - 0.025^(1/10) = 0.3085.
    nothing = figures.drop("x", before, before)
    assert (nothing.estimate, nothing.low, nothing.high) == pytest.approx((0, -0.3085, 0.3085), abs=1e-4)
    everything = figures.drop("x", [True] * 10, [False] * 10)
    assert (everything.low, everything.high) == pytest.approx((0.6915, 1), abs=1e-4)
    gained = figures.drop("x", [False] * 10, [True] * 10)
    assert (gained.estimate, gained.low, gained.high) == pytest.approx((-1, -1, -0.6915), abs=1e-4)
    assert figures.share("x", []).estimate is None
    assert figures.drop("x", [], []).estimate is None


def test_slope_correlation_and_ratio_by_hand():
    rows = np.array([[1.0, 2.0], [2.0, 4.0], [3.0, 3.0]])
    assert figures.slope(rows) == pytest.approx(0.5)
    assert figures.correlation(rows) == pytest.approx(0.5)
    assert figures.ratio(rows) == pytest.approx(6 / 9)
    assert figures.correlation(np.array([[1.0, 2.0], [2.0, 2.0]])) == 0
    assert figures.slope(np.array([[1.0, 2.0], [1.0, 3.0]])) is None
    assert figures.ratio(np.zeros((2, 2))) is None


def test_resampled_interval_holds_the_estimate():
    rows = np.array([[1.0, 1.0]] * 50 + [[0.0, 1.0]] * 50)
    found = figures.resampled("x", figures.ratio, rows)
    assert found.estimate == 0.5
    assert 0.35 < found.low < 0.45 < 0.55 < found.high < 0.65
    assert figures.resampled("x", figures.slope, np.empty((0, 2))).estimate is None
    perfect = figures.resampled("x", figures.ratio, np.array([[3.0, 3.0]] * 10), unit="share")
    assert (perfect.estimate, perfect.low, perfect.high) == pytest.approx((1, 0.6915, 1), abs=1e-4)


def test_calibration_error_by_hand():
    # Bin 0: mean 0.05, none due. Bin 9: two at 0.95, one due. 1/3·0.05 + 2/3·0.45.
    rows = np.array([[0.05, 0.0], [0.95, 1.0], [0.95, 0.0]])
    assert calibration_error(rows) == pytest.approx((0.05 + 2 * 0.45) / 3)
    assert calibration_error(np.array([[1.0, 1.0], [0.0, 0.0]])) == 0
    assert calibration_error(np.empty((0, 2))) is None


def test_effective_rank_by_hand():
    # Centred: ±1 along two axes, and nothing else, so two equal singular values.
    square = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert effective_rank(square + 5) == pytest.approx(2)
    assert effective_rank(torch.tensor([[1.0, 2], [3, 6], [5, 10]])) == pytest.approx(1)
    assert effective_rank(torch.full((4, 3), 0.1)) == 0
    # Singular values 3 and 1: entropy of (3/4, 1/4).
    uneven = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert effective_rank(uneven) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_course_of_training_is_read_from_the_log(tmp_path):
    lines = [{"step": 2, "latents/mean_length": 2.5}, {"step": 3}, {"step": 9, "latents/mean_length": 4.0}]
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 10, "latents/mean'
    (tmp_path / "metrics.jsonl").write_text(text)
    found = {figure.name: figure.estimate for figure in over_training(tmp_path)}
    assert found == {
        "over training: latents/mean_length at step 2": 2.5,
        "over training: latents/mean_length at step 9": 4.0,
    }
    assert over_training(None) == over_training(tmp_path / "nowhere") == []


def test_json_comes_back(diagnosis, tmp_path):
    file = diagnosis.save(tmp_path / "new" / "x.json")
    loaded = Diagnosis.load(file)
    assert loaded == diagnosis
    assert loaded.failed == ["b"]
    assert loaded.finding("a").figure("y").estimate == 2
    with pytest.raises(KeyError, match="no finding 'z': a, b, c"):
        loaded.finding("z")
    with pytest.raises(KeyError, match="a has no figure 'z'"):
        loaded.finding("a").figure("z")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "format_version is 9"),
        ({"colour": 1}, "a diagnosis has no colour"),
        ({"findings": [{"name": "a"}]}, "not a diagnosis"),
        ({"accuracy": 3}, "not a diagnosis"),
        (
            {"findings": [{"name": "a", "status": "x", "verdict": "", "figures": []}]},
            "there is no status 'x'",
        ),
    ],
)
def test_other_files_are_refused_by_name(diagnosis, tmp_path, change, message):
    file = tmp_path / "x.json"
    file.write_text(json.dumps({**diagnosis.to_json(), **change}))
    with pytest.raises(ValueError, match=f"x.json: {message}"):
        Diagnosis.load(file)


def test_markdown_and_table_show_every_finding(diagnosis):
    text = diagnosis_markdown(diagnosis)
    assert "| a | sound | fine |" in text
    assert "| b | failed | a \\| b |" in text
    assert "| x | 50.0% [25.0, 75.0] | 8 |" in text
    assert "Above 1." in text
    assert diagnosis_table(diagnosis, with_figures=True).row_count == 3


def test_a_status_that_does_not_exist_is_refused():
    assert Finding("a", NOTED, "x").status == "noted"
    with pytest.raises(ValueError, match="there is no status 'good': it must be one of sound"):
        Finding("a", "good", "x")
