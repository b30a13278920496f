"""Several benchmarks in one report: which one it is about, and that none is mixed with another."""

from __future__ import annotations

import pytest

from latentplan.report import ReportEntry
from latentplan.report.run_reader import benchmarks_of, by_benchmark, load_runs, main_benchmark
from latentplan.report.summary import summarise_runs

GREEDY, SAMPLED = (0.0, 0.0), (1.0, 1.0)


def found(**files: tuple[str, tuple[float, float]]) -> dict:
    """The evaluations of a run from (benchmark, temperatures) by file name."""
    return by_benchmark(
        (
            stem,
            {"benchmark": name, "sampling": {"temperature": text, "latent_temperature": latent}, "is": stem},
        )
        for stem, (name, (text, latent)) in files.items()
    )


def test_evaluations_are_grouped_by_benchmark() -> None:
    evaluations = found(
        hot=("svamp", (0.7, 0.7)),
        latent=("svamp", (0.0, 1.0)),
        a=("svamp", GREEDY),
        b=("svamp", SAMPLED),
        again=("svamp", GREEDY),
        c=("gsm8k", SAMPLED),
    )
    assert evaluations["svamp"].stem == "a"
    assert evaluations["svamp"].greedy["is"] == "a"
    assert evaluations["svamp"].sampled["is"] == "b"
    assert evaluations["gsm8k"].greedy is None
    assert list(by_benchmark([("mine", {})])) == ["mine"]


@pytest.mark.parametrize(
    ("runs", "main"),
    [
        ([], None),
        ([{}], None),
        ([{"b": GREEDY, "a": GREEDY}], "a"),
        ([{"a": GREEDY, "gsm8k": GREEDY}], "gsm8k"),
        ([{"gsm8k": GREEDY, "minigsm:clock": GREEDY}], "minigsm:clock"),
        ([{"minigsm:clock": GREEDY, "test": GREEDY}], "test"),
        ([{"test": GREEDY, "a": GREEDY, "a-t1": SAMPLED}], "a"),
        ([{"test": GREEDY, "a": GREEDY, "a-t1": SAMPLED}, {"test": GREEDY}, {}], "test"),
        ([{"b-t1": SAMPLED, "z": GREEDY}], "z"),
    ],
)
def test_the_main_benchmark(runs: list, main: str | None) -> None:
    evaluations = [
        found(**{stem: (stem.removesuffix("-t1"), heat) for stem, heat in run.items()}) for run in runs
    ]
    assert main_benchmark(evaluations) == main


def test_greedy_and_sampled_are_of_one_benchmark(several: list[ReportEntry]) -> None:
    runs = load_runs(several)
    assert benchmarks_of(runs) == ["gsm8k", "gsm-hard", "svamp"]
    summary = summarise_runs(runs)
    for run in runs:
        assert (run.measured("benchmark"), run.measured_sampled("benchmark")) == ("gsm8k", "gsm8k")
        assert len(run.predictions) == 7
        method = summary["methods"][run.name]
        assert (method["accuracy"], method["accuracy_sampled"]) == (0.4, 0.3)
    assert list(summary["benchmarks"]["cot"]) == ["gsm8k", "gsm-hard", "svamp"]
    assert summary["benchmarks"]["atp_latent_sft"] == {
        "gsm8k": {"accuracy": 0.4, "interval": [0.05, 0.95], "tokens": 8.0},
        "gsm-hard": {"accuracy": 0.1, "interval": [0.05, 0.95], "tokens": 8.0},
    }
