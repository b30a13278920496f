"""From `dataset_name` to problems and token ids: in memory or on disk, the same run."""

from __future__ import annotations

import json
import tracemalloc

import pytest
import yaml
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.encoding.processor import ProblemProcessor
from latentplan.encoding.token_store import encode_problems
from latentplan.problems import training_set as reading
from latentplan.problems.decontamination import ContaminationError, TrainedQuestions
from latentplan.problems.fingerprint import fingerprint
from latentplan.problems.problem import DataError, Problem
from latentplan.problems.problem_store import ProblemStore, SelectedProblems
from latentplan.problems.training_set import DataArguments, common_modulus, load_training_problems
from latentplan.training.configs import ModelArguments
from latentplan.training.run_training import train_grpo, train_sft

COLUMNS = {"question": "problem", "steps": "solution", "answer": "final"}


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTPLAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clock_file(tmp_path, clock_problems):
    return write(tmp_path / "clock.jsonl", clock_problems)


@pytest.fixture
def processor(clock_tokenizer):
    return ProblemProcessor(clock_tokenizer)


def write(path, problems):
    path.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in problems))
    return path


def entries(folder):
    return sorted(path.name.split("-")[0] for path in folder.glob("*-*") if not path.name.startswith("."))


@pytest.fixture
def tokenised(monkeypatch):
    """How many problems each call has tokenised."""
    calls: list[int] = []
    encode_all = ProblemProcessor.encode_all

    def count(self, problems):
        calls.append(len(problems))
        return encode_all(self, problems)

    monkeypatch.setattr(ProblemProcessor, "encode_all", count)
    return calls


def test_a_small_set_stays_in_memory(clock_file, clock_problems, processor, cache_folder):
    problems, removed = load_training_problems(DataArguments(dataset_name=[str(clock_file)]))
    assert (problems, removed) == (clock_problems, 0)
    assert isinstance(encode_problems(problems, processor, DataArguments())[0], list)
    assert not cache_folder.exists()


def test_a_large_set_goes_to_disk_and_is_read_and_tokenised_once(
    clock_file, clock_problems, processor, cache_folder, tokenised, monkeypatch
):
    monkeypatch.setattr(reading, "IN_MEMORY", 100)
    data = DataArguments(dataset_name=[str(clock_file)])
    problems, _ = load_training_problems(data)
    assert isinstance(problems, ProblemStore)
    assert list(problems) == clock_problems
    assert fingerprint(problems) == fingerprint(clock_problems)
    assert common_modulus(problems) == 11
    encoded, kept = encode_problems(problems, processor, data)
    assert list(kept) == clock_problems
    assert sum(tokenised) == 300
    assert entries(cache_folder) == ["encoded", "problems"]
    monkeypatch.setattr(reading, "write_problems", None)  # reading again would fail
    again = encode_problems(load_training_problems(data)[0], processor, data)
    assert sum(tokenised) == 300
    assert list(again[0]) == list(encoded) == processor.encode_all(clock_problems)


def test_the_cache_goes_by_content(clock_file, clock_problems, processor, cache_folder, tokenised):
    data = DataArguments(dataset_name=[str(clock_file)], dataset_streaming=True)
    encode_problems(load_training_problems(data)[0], processor, data)
    copied = DataArguments(dataset_name=[str(write(clock_file.with_name("copy.jsonl"), clock_problems))])
    copied.dataset_streaming = True
    encode_problems(load_training_problems(copied)[0], processor, copied)
    assert sum(tokenised) == 300  # the same problems in another file are not tokenised again
    write(clock_file, clock_problems[:-1])
    changed, _ = load_training_problems(data)
    assert list(changed) == clock_problems[:-1]
    encode_problems(changed, processor, data)
    assert sum(tokenised) == 300 + 299
    encode_problems(changed, ProblemProcessor(processor.tokenizer, answer_marker="#### "), data)
    assert sum(tokenised) == 300 + 299 + 299


def test_minigsm_may_be_on_disk_too(processor, cache_folder):
    streamed = DataArguments(
        dataset_size=30, dataset_streaming=True, dataset_cache_dir=str(cache_folder / "x")
    )
    problems, _ = load_training_problems(streamed)
    assert list(problems) == load_training_problems(DataArguments(dataset_size=30))[0]
    encode_problems(problems, processor, streamed)
    assert list(load_training_problems(streamed)[0]) == list(problems)
    assert entries(cache_folder / "x") == ["encoded", "problems"]


@pytest.mark.parametrize("streaming", [False, True])
def test_limits_and_exclusions_select_from_the_store(
    streaming, clock_file, clock_problems, processor, tmp_path
):
    excluded = write(tmp_path / "excluded.jsonl", clock_problems[10:15])
    data = DataArguments(
        dataset_name=[str(clock_file)],
        dataset_streaming=streaming,
        exclude_benchmarks=[str(excluded)],
        max_text_tokens=2 * 7 + 3,
    )
    problems, removed = load_training_problems(data)
    assert removed == 5
    encoded, kept = encode_problems(problems, processor, data)
    expected = [each for each in clock_problems[:10] + clock_problems[15:] if len(each.steps) <= 2]
    assert list(kept) == expected
    assert list(encoded) == processor.encode_all(expected)
    assert isinstance(kept, SelectedProblems if streaming else list)
    assert fingerprint(kept) == fingerprint(expected)
    with pytest.raises(ValueError, match=f"none of {len(problems)} problems is short enough"):
        encode_problems(problems, processor, DataArguments(max_text_tokens=1))


@pytest.mark.parametrize("streaming", [False, True])
def test_training_on_evaluation_questions_is_refused(streaming, clock_file, clock_problems, tmp_path):
    evaluation = write(tmp_path / "test.jsonl", clock_problems[20:23])
    data = DataArguments(
        dataset_name=[str(clock_file)], dataset_streaming=streaming, held_out_benchmarks=[str(evaluation)]
    )
    with pytest.raises(ContaminationError) as error:
        load_training_problems(data)
    assert f"3 of 300 training problems are questions of the evaluation set {evaluation}" in str(error.value)
    assert f"{clock_file}:21 {clock_problems[20].question[:40]!r}"[:-1] in str(error.value)
    data.exclude_benchmarks = [str(evaluation)]
    problems, removed = load_training_problems(data)
    assert (len(problems), removed) == (297, 3)
    with pytest.raises(ContaminationError, match=rf"set validation: {clock_file}:25 "):
        load_training_problems(data, held_out={"validation": [clock_problems[24]]})


def test_minigsm_holds_its_own_test_split_out():
    data = DataArguments(dataset_size=200, held_out_benchmarks=["minigsm:clock"])
    assert len(load_training_problems(data)[0]) == 200


def test_a_column_map_serves_training_and_evaluation_sets(tmp_path, clock_problems):
    rows = [
        {"problem": each.question, "solution": list(each.steps), "final": each.answer}
        for each in clock_problems
    ]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.json"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test.write_text(json.dumps(rows[:2]))
    own = write(tmp_path / "own.jsonl", clock_problems[2:4])
    data = DataArguments(
        dataset_name=[str(train)], dataset_columns=COLUMNS, exclude_benchmarks=[str(test), str(own)]
    )
    problems, removed = load_training_problems(data)
    assert removed == 4
    assert [each.question for each in problems] == [each.question for each in clock_problems[4:]]
    with pytest.raises(DataError, match=r"train.jsonl:1: the columns problem, solution, final tell no known"):
        load_training_problems(DataArguments(dataset_name=[str(train)]))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_hub_set_is_trained_on_by_its_name(
    streaming, tmp_path, monkeypatch, clock_problems, processor, tokenised
):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "owner" / "name" / "small"
    folder.mkdir(parents=True)
    rows = [
        {"problem": each.question, "solution": list(each.steps), "final": each.answer}
        for each in clock_problems
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder.parent / "README.md").write_text(
        "---\nconfigs:\n- {config_name: small, data_files: small/train.jsonl}\n"
        "- {config_name: other, data_files: other.jsonl}\n---\n"
    )
    data = DataArguments(
        dataset_name=["owner/name"],
        dataset_config="small",
        dataset_columns=COLUMNS,
        dataset_size=50,
        dataset_streaming=streaming,
    )
    for _ in range(2):
        problems, _ = load_training_problems(data)
        assert [each.steps for each in problems] == [each.steps for each in clock_problems[:50]]
        encode_problems(problems, processor, data)
    assert sum(tokenised) == (50 if streaming else 100)
    with pytest.raises(ContaminationError, match=r"owner/name \(train\):3 "):
        load_training_problems(data, held_out={"validation": [clock_problems[2]]})


def peak_of(path, problems, processor, cache):
    """Peak of Python's memory while a streamed file becomes token ids, in bytes."""
    write(path, problems)
    data = DataArguments(dataset_name=[str(path)], dataset_streaming=True, dataset_cache_dir=str(cache))
    tracemalloc.start()
    encoded, _ = encode_problems(load_training_problems(data)[0], processor, data)
    assert len(encoded) == len(problems)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_the_memory_of_a_streamed_set_does_not_grow_with_it(tmp_path, processor, clock_problems):
    problems = [
        Problem(f"{each.question} {n}", each.steps, each.answer) for n in range(10) for each in clock_problems
    ]
    small = peak_of(tmp_path / "small.jsonl", problems[:1500], processor, tmp_path / "a")
    large = peak_of(tmp_path / "large.jsonl", problems * 2, processor, tmp_path / "b")
    assert large < small + 6000 * 64  # of each further problem a few numbers, and neither text nor ids


def test_a_streamed_run_ends_with_the_weights_of_one_in_memory(
    scratch_model, sft_config, clock_file, assert_same_weights, tmp_path
):
    runs = []
    for streaming in (False, True):
        data = DataArguments(dataset_name=[str(clock_file)], dataset_streaming=streaming)
        config = sft_config(tmp_path / f"streaming-{streaming}", curriculum_steps=[1], save_strategy="no")
        runs.append(train_sft(scratch_model, data, config))
    assert_same_weights(runs[0].path, runs[1].path)
    assert runs[0].record["data"] == runs[1].record["data"]


def test_a_run_keeps_what_it_and_its_start_were_trained_on(
    scratch_model, sft_config, grpo_config, clock_problems, tmp_path
):
    files = [write(tmp_path / f"{n}.jsonl", clock_problems[20 * n : 20 * n + 20]) for n in range(2)]
    first = train_sft(
        scratch_model,
        DataArguments(dataset_name=[str(files[0])]),
        sft_config(tmp_path / "sft", curriculum_steps=[1], save_strategy="no"),
    )
    second = train_grpo(
        ModelArguments(model_name_or_path=str(first.path)),
        DataArguments(dataset_name=[str(files[1])]),
        grpo_config(tmp_path / "rl", max_steps=1, save_strategy="no"),
    )
    counted = [TrainedQuestions.load(run.path).count(clock_problems[:50]) for run in (first, second)]
    assert counted == [20, 40]


def test_the_command_line_refuses_and_says_what_to_do(scratch_model, tmp_path, clock_problems):
    train = write(tmp_path / "train.jsonl", clock_problems)
    test = write(tmp_path / "test.jsonl", clock_problems[:1])
    recipe = tmp_path / "recipe.yaml"
    settings = {
        "dataset_name": str(train),
        "held_out_benchmarks": str(test),
        "use_cpu": True,
        "curriculum_steps": 1,
    }
    recipe.write_text(yaml.safe_dump({**settings, "backbone_config": scratch_model.backbone_config}))
    result = CliRunner().invoke(
        app, ["sft", "--config", str(recipe), "--output_dir", str(tmp_path / "run")], env={"COLUMNS": "400"}
    )
    assert result.exit_code == 2
    assert (
        f"1 of 300 training problems are questions of the evaluation set {test}: {train}:1" in result.output
    )
    assert f"list {test} under exclude_benchmarks" in result.output
