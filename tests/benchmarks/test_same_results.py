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
        ({"weight": 1.25}, "weights", "model/model.safetensors: head.weight[0, 1]", 0.2),
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
    assert (found.where, found.examples[0][0]) == (where, where)
    assert (found.largest, found.not_numbers) == ((0.0, 1) if largest == math.inf else (largest, 0))
    assert f"part, run, {kind}: 1 of {found.compared} differ" in scripts.same.table({"part": results})


def test_a_difference_is_absolute_below_one_and_relative_above(scripts):
    difference = scripts.differences.difference
    assert difference(0.5, 0.75) == 0.25
    assert difference(3.0, 4.0) == 0.25
    assert difference(np.array([0.5, -3.0]), np.array([0.625, -4.0])) == 0.25


def test_the_largest_difference_is_told_and_the_tolerance_allows_it(scripts):
    old = {"a": 1.0, "b": 0.5, "c": np.zeros((2, 2)), "d": "text"}
    new = {"a": 2.0, "b": 0.75, "c": np.array([[0.0, 0.25], [0.125, 0.0]]), "d": "other"}
    found = scripts.differences.compare(old, new)
    assert (found.compared, found.elements, found.different, found.not_numbers) == (4, 7, 4, 1)
    assert (found.largest, found.where) == (0.5, "a")
    assert found.examples[2] == ["c[0, 1]", "0.0", "0.25"]
    assert scripts.differences.compare(old, new, tolerance=0.25).different == 2
    assert scripts.differences.compare(old, new, tolerance=10.0).different == 1


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
def test_no_number_says_how_far_other_things_are_apart(scripts, old, new):
    assert scripts.differences.difference(old, new) == math.inf


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


FAKE = """
import pathlib, sys
name, run = sys.argv[1:3]
assert name != "evaluate", "evaluations fail here"
pathlib.Path(run).mkdir()
"""


@pytest.fixture
def side(scripts, tmp_path, monkeypatch):
    """A revision whose command line is a few lines that make a folder, or fail."""
    made = scripts.same.Side("old", "abc", "abc", tmp_path / "old-abc")
    package = made.source / "latentplan"
    package.mkdir(parents=True)
    (tmp_path / "inputs").mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE)
    monkeypatch.setattr(scripts.same, "_PRELOAD", "")
    return made


def test_a_finished_part_is_not_computed_again_unless_its_commands_changed(scripts, side):
    folder = scripts.same.run_part("part", side, [(["sft", "first"], {})])
    made = (folder / "first").stat().st_ino
    assert scripts.same.run_part("part", side, [(["sft", "first"], {})]) == folder
    assert (folder / "first").stat().st_ino == made
    scripts.same.run_part("part", side, [(["sft", "second"], {})])
    assert (folder / "second").is_dir()
    assert not (folder / "first").exists()


def test_a_command_that_fails_ends_its_part_with_the_end_of_its_log(scripts, side):
    commands = [(["sft", "first"], {}), (["evaluate", "first"], {}), (["sft", "second"], {})]
    with pytest.raises(
        scripts.same.PartFailedError, match=r"(?s)`evaluate first` ended.*evaluations fail here"
    ):
        scripts.same.run_part("part", side, commands)
    assert (side.folder / "part" / "first").is_dir()
    assert not (side.folder / "part" / "second").exists()
    with pytest.raises(scripts.same.PartFailedError):  # it is tried again
        scripts.same.run_part("part", side, commands)
