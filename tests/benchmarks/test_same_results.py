"""The comparison of two revisions finds what differs, and only that; nothing is trained here."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import result_differences
        import same_results
        import tiny_families
    finally:
        sys.path.remove(str(BENCHMARKS))
    return SimpleNamespace(differences=result_differences, same=same_results, tiny=tiny_families)


def write_run(part, seconds=1.0, loss=0.5, weight=1.0, completion="### 4", name="run"):
    """A run as commands leave it, with what may differ and what may not."""
    run = part / name
    (run / "model" / "step_decoder").mkdir(parents=True)
    (run / "evaluation").mkdir()
    save_file({"head.weight": np.array([[1.0, weight]], dtype=np.float32)}, run / "model/model.safetensors")
    save_file({"map": np.ones(3, dtype=np.float32)}, run / "model/step_decoder/model.safetensors")
    rows = [{"step": 1, "loss": 0.7, "seconds": seconds}, {"step": 2, "loss": loss, "seconds": 2 * seconds}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = {"finished": f"at {seconds}", "git": str(seconds), "seconds": seconds, "steps": 2}
    (run / "run.json").write_text(json.dumps(record))
    (run / "samples.jsonl").write_text(json.dumps({"completion": completion, "finished": True}) + "\n")
    result = {"finished": 0.8, "created": f"at {seconds}", "versions": {"latentplan": str(seconds)}}
    (run / "evaluation" / "test.json").write_text(json.dumps({**result, "warnings": [str(seconds)]}))
    return run


@pytest.fixture
def parts(tmp_path):
    """Two parts, to be written into."""
    return tmp_path / "old", tmp_path / "new"


def different(results, run="run"):
    return {kind: found.different for kind, found in results[run].items() if found.different}


def test_runs_that_differ_in_times_dates_and_versions_are_equal(scripts, parts):
    for seconds, part in enumerate(parts, 1):
        write_run(part, seconds=seconds)
    results = scripts.same.compare_parts(*parts)
    assert scripts.same.is_equal(results)
    compared = {kind: found.compared for kind, found in results["run"].items()}
    assert compared == {"weights": 2, "training": 5, "samples": 2, "evaluation": 1}
    assert results["run"]["weights"].elements == 5


@pytest.mark.parametrize(
    ("changed", "kind", "where", "largest"),
    [
        ({"weight": 1.25}, "weights", "model/model.safetensors: head.weight", 0.25),
        ({"loss": 0.5 + 2**-40}, "training", "metrics.jsonl: line 2 > loss", 2**-40),
        ({"loss": None}, "training", "metrics.jsonl: line 2 > loss", math.inf),
        ({"completion": "### 5"}, "samples", "samples.jsonl: line 1 > completion", math.inf),
    ],
)
def test_one_value_that_differs_is_found(scripts, parts, changed, kind, where, largest):
    old, new = parts
    write_run(old)
    write_run(new, **changed)
    results = scripts.same.compare_parts(old, new)
    assert different(results) == {kind: 1}
    assert not scripts.same.is_equal(results)
    found = results["run"][kind]
    assert (found.where, found.largest) == (where, largest)
    assert f"largest {'not numbers' if largest == math.inf else f'{largest:.3g}'} at {where}" in (
        scripts.same.table({"part": results})
    )


def test_the_tolerance_is_absolute_below_one_and_relative_above(scripts):
    difference = scripts.differences.difference
    assert difference(0.1, 0.1 + 1e-7, tolerance=1e-6) == 0
    assert difference(1000.0, 1000.5, tolerance=1e-3) == 0
    assert difference(1000.0, 1002.0, tolerance=1e-3) == 2
    assert difference(np.array([1.0, 2.0]), np.array([1.5, 4.0]), tolerance=0.6) == 0
    assert difference(np.array([1.0, 2.0]), np.array([1.5, 5.0]), tolerance=0.5) == 3


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (1, True),
        (1.0, "1.0"),
        (0.0, None),
        (1.0, math.nan),
        (math.inf, -math.inf),
        (np.ones(2, dtype=np.float32), np.ones(2, dtype=np.float64)),
        (np.ones((1, 2)), np.ones(2)),
    ],
)
def test_no_tolerance_makes_other_things_equal(scripts, old, new):
    assert scripts.differences.difference(old, new, tolerance=10.0) == math.inf


def test_values_that_are_no_numbers_equal_themselves(scripts):
    for value in (math.nan, math.inf, None, True, "text", [], {}):
        assert scripts.differences.difference(value, value) == 0


@pytest.mark.parametrize("lacking", ["old", "new"])
@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("metrics.jsonl", {"training": 4}),
        ("samples.jsonl", {"samples": 2}),
        ("model/step_decoder/model.safetensors", {"weights": 1}),
    ],
)
def test_a_file_that_one_side_lacks_is_a_difference(scripts, parts, lacking, file, counts):
    for part in parts:
        write_run(part)
    (parts[lacking == "new"] / "run" / file).unlink()
    assert different(scripts.same.compare_parts(*parts)) == counts


def test_a_run_that_one_side_lacks_is_a_difference(scripts, parts):
    for part in parts:
        write_run(part)
    write_run(parts[1], name="other")
    assert different(scripts.same.compare_parts(*parts), "other").keys() == {
        "weights",
        "training",
        "samples",
        "evaluation",
    }
    assert scripts.same.is_equal(scripts.same.compare_parts(*parts, allow_added=True))
    assert not scripts.same.is_equal(scripts.same.compare_parts(*parts[::-1], allow_added=True))


def test_parts_that_left_nothing_are_refused(scripts, parts):
    for part in parts:
        (write_run(part) / "model/model.safetensors").unlink()
        (part / "run/model/step_decoder/model.safetensors").unlink()
    with pytest.raises(scripts.same.PartFailedError, match="no weights were found"):
        scripts.same.compare_parts(*parts)


def test_new_names_are_read_from_the_table(scripts, parts, monkeypatch):
    old, new = parts
    write_run(old)
    run = write_run(new)
    (run / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text().replace('"loss"', '"objective"'))
    save_file({"heads.weight": np.ones((1, 2), dtype=np.float32)}, run / "model/model.safetensors")
    (run / "samples.jsonl").rename(run / "trajectories.jsonl")
    monkeypatch.setitem(scripts.differences.KINDS, "samples", ("samples.jsonl", "trajectories.jsonl"))
    assert different(scripts.same.compare_parts(old, new)) == {"weights": 2, "training": 4, "samples": 4}
    for table, renaming in (
        ("keys", ("loss", "objective")),
        ("tensors", ("head.", "heads.")),
        ("files", ("samples.jsonl", "trajectories.jsonl")),
    ):
        monkeypatch.setitem(scripts.differences.RENAMED[table], *renaming)
    assert scripts.same.is_equal(scripts.same.compare_parts(old, new))


def test_a_renamed_setting_is_spelled_as_the_revision_knows_it(scripts):
    command = (["grpo"], {"estimator": "pathwise", "reward_funcs": ["accuracy", "format"]})
    renamed = {"estimator": "latent_gradient"}
    rest = ["pathwise", "--reward_funcs", "accuracy", "format"]
    spelled = scripts.tiny.spelled
    assert spelled(command, renamed, "[--estimator ESTIMATOR]") == ["grpo", "--estimator", *rest]
    assert spelled(command, renamed, "[--latent_gradient NAME]") == ["grpo", "--latent_gradient", *rest]


def test_a_part_that_failed_is_in_the_table(scripts, parts):
    for part in parts:
        write_run(part)
    shown = scripts.same.table({"llama": scripts.same.compare_parts(*parts), "gpt2": "out of memory"})
    assert "2 equal" in shown
    assert "gpt2 failed: out of memory" in shown
