"""Validation while a model trains: what it measures, that it changes nothing, and the best checkpoint."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from latentplan.encoding.token_store import encode_problems
from latentplan.modeling.loading import load_model
from latentplan.problems.decontamination import find_overlap
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.rewards import RewardSet
from latentplan.rollout.decoding_accuracy import teacher_share
from latentplan.training import rl_diagnostics as instruments
from latentplan.training import run_training as runs
from latentplan.training.configs import GRPOConfig
from latentplan.training.grpo_trainer import GRPOTrainer
from latentplan.training.run_directory import MetricsFile
from latentplan.training.run_training import train_sft
from latentplan.training.trainable_model import LatentModelForTraining, make_processor
from latentplan.training.validation import (
    ValidationSet,
    load_validation,
    means_of,
    rollout_sums,
    validation_batches,
)

EVALUATES = {"eval_strategy": "steps", "eval_steps": 3, "eval_dataset_size": 20}


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def evaluations(folder):
    rows = lines_of(folder / "metrics.jsonl")
    return [
        {name: value for name, value in row.items() if name != "eval_seconds"}
        for row in rows
        if "eval_accuracy" in row
    ]


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, run_sft):
    return run_sft(tmp_path_factory.mktemp("evaluated") / "run", save_strategy="no", **EVALUATES)


def test_evaluating_changes_nothing_of_the_training(evaluated, run_sft, assert_same_weights, tmp_path):
    plain = run_sft(tmp_path / "run", save_strategy="no")
    assert_same_weights(evaluated.path, plain.path)
    rows = [row for row in lines_of(evaluated.path / "metrics.jsonl") if "loss" in row]
    expected = lines_of(plain.path / "metrics.jsonl")
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]


def test_each_evaluation_is_a_line_of_metrics_and_some_samples(evaluated):
    rows = evaluations(evaluated.path)
    assert [row["step"] for row in rows] == [3, 6, 9]
    parts = {f"eval_loss/{name}" for name in ("text", "step_decoder", "stop", "kl")}
    measured = {"accuracy", "tokens", "latents", "latents_needed", "coherence", "reconstruction", "loss"}
    for row in rows:
        assert parts | {f"eval_{name}" for name in measured} <= row.keys()
        assert 0 <= row["eval_accuracy"] <= 1
        assert "seconds" not in row
    samples = lines_of(evaluated.path / "samples.jsonl")
    assert [sample["step"] for sample in samples] == [3] * 8 + [6] * 8 + [9] * 8
    assert {"question", "answer", "completion", "plan", "num_latents", "split"} <= samples[0].keys()


def test_the_batch_size_does_not_change_an_evaluation(evaluated, run_sft, tmp_path):
    other = run_sft(tmp_path / "run", save_strategy="no", per_device_eval_batch_size=7, **EVALUATES)
    for one, two in zip(evaluations(evaluated.path), evaluations(other.path), strict=True):
        assert one == pytest.approx(two, rel=1e-5)


def test_the_loss_is_that_of_the_validation_problems_as_one_batch(evaluated, sft_config, data_arguments):
    system, loaded = LatentModelForTraining.from_pretrained(evaluated.model_path)
    config = sft_config(evaluated.path, **EVALUATES)
    validation = load_validation(config, data_arguments, loaded.processor, [])
    (batch,) = validation_batches(
        system, loaded.processor, validation, range(20), stage=3, seed=3, batch_size=20
    )
    with torch.no_grad():
        expected = system(**batch)
    row = evaluations(evaluated.path)[-1]
    for name, value in expected.items():
        assert row[f"eval_{name}"] == pytest.approx(float(value), rel=1e-5), name


def test_measures_of_a_model_that_has_learned(make_system, as_loaded, overfit, mixed_problems):
    """Six problems by heart, decoded and solved: every share is 1, and every length as labelled."""
    system = make_system("atp_latent", initial_log_variance=-6.0, max_latent_steps=4)
    overfit(system, mixed_problems, bound=0.05, steps=400)
    sums, solutions = rollout_sums(as_loaded(system), mixed_problems, stage=None, batch_size=4)
    measured = means_of(sums)
    assert measured["accuracy"] == measured["reconstruction"] == 1
    assert measured["latents"] == measured["latents_needed"] == 2 * 15 / 6
    assert measured["tokens"] == sum(solution.num_tokens for solution in solutions) / 6
    alone, _ = rollout_sums(as_loaded(system), mixed_problems[:3], stage=None, batch_size=4)
    rest, _ = rollout_sums(as_loaded(system), mixed_problems[3:], stage=None, batch_size=4)
    for name, (total, count) in sums.items():
        assert (alone[name][0] + rest[name][0], alone[name][1] + rest[name][1]) == (total, count)


def test_at_an_earlier_stage_only_the_latent_steps_are_read(make_system, as_loaded, mixed_problems):
    model = as_loaded(make_system("atp_latent"))
    assert teacher_share(model, mixed_problems, batch_size=6, stage=1).total == 6
    assert teacher_share(model, mixed_problems, batch_size=6, stage=2).total == 10
    # At the last stage, K = 3, a fourth step is read together with the third.
    assert teacher_share(model, mixed_problems, batch_size=6).total == 13


def test_minigsm_is_validated_on_its_own_split(
    sft_config, data_arguments, make_system, clock_tokenizer, tmp_path
):
    processor = make_processor(clock_tokenizer, make_system("cot").reasoner)
    validation = load_validation(sft_config(tmp_path, **EVALUATES), data_arguments, processor, [])
    assert validation.problems == list(generate(PRESETS["clock"], split="validation", count=20, seed=0))
    train = list(generate(PRESETS["clock"], split="train", count=300, seed=0))
    assert not find_overlap(train, validation.problems)
    assert load_validation(sft_config(tmp_path), data_arguments, processor, []) is None


def test_what_is_trained_on_is_no_validation(
    mixed_problems, scratch_model, data_arguments, sft_config, tmp_path
):
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in mixed_problems))
    data = replace(data_arguments, dataset_name=[str(file)])
    config = sft_config(tmp_path / "run", **EVALUATES)
    with pytest.raises(ValueError, match="set eval_dataset_name"):
        train_sft(scratch_model, data, config)
    config = sft_config(tmp_path / "run", **EVALUATES, eval_dataset_name=[str(file)])
    with pytest.raises(ValueError, match=r"6 of 6 training problems are questions of .*train\.jsonl: "):
        train_sft(scratch_model, data, config)


def test_parts_of_the_problems_cover_all_of_them_once(mixed_problems):
    validation = ValidationSet(mixed_problems, [])
    for processes in range(1, 7):
        parts = [validation.part(process, processes) for process in range(processes)]
        assert [place for part in parts for place in part] == list(range(6))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


BEST = {**EVALUATES, "eval_steps": 2, "load_best_model_at_end": True, "save_total_limit": 1}


@pytest.fixture
def best_at(monkeypatch):
    """Arranges what the evaluations find: a value for each step, as the metric `accuracy`."""

    def arrange(values):
        whole = runs.SFTTrainer._measure

        def measured(self, validation):
            return {**whole(self, validation), "accuracy": values[self.state.global_step]}

        monkeypatch.setattr(runs.SFTTrainer, "_measure", measured)

    return arrange


@pytest.fixture
def keep_checkpoints(monkeypatch):
    """Copies each checkpoint's weights aside as it is written."""
    kept = {}

    class Keeping(MetricsFile):
        def on_save(self, args, state, control, **kwargs):
            folder = self.run.path / f"checkpoint-{state.global_step}"
            kept[state.global_step] = load_file(folder / "model.safetensors")

    monkeypatch.setattr(runs, "MetricsFile", Keeping)
    return kept


def test_the_model_is_the_best_checkpoint(best_at, keep_checkpoints, run_sft, tmp_path):
    best_at({2: 0.1, 4: 0.7, 6: 0.7, 8: 0.2, 9: 0.3})
    run = run_sft(tmp_path / "run", metric_for_best_model="accuracy", **BEST)
    assert run.record["best"] == {"step": 4, "accuracy": 0.7}
    weights = load_file(run.model_path / "model.safetensors")
    assert all(torch.equal(value, keep_checkpoints[4][name]) for name, value in weights.items())
    assert any(not torch.equal(value, keep_checkpoints[9][name]) for name, value in weights.items())


@pytest.fixture
def interrupted(monkeypatch, run_sft):
    """Starts a run that keeps its best checkpoint, and stops it after step 7."""

    class Interrupting(MetricsFile):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 7:
                raise KeyboardInterrupt

    def start(folder):
        with monkeypatch.context() as patch:
            patch.setattr(runs, "MetricsFile", Interrupting)
            with pytest.raises(KeyboardInterrupt):
                run_sft(folder, metric_for_best_model="accuracy", **BEST)

    return start


def test_a_damaged_checkpoint_is_no_longer_the_best(best_at, interrupted, run_sft, caplog, tmp_path):
    best_at({2: 0.1, 4: 0.7, 6: 0.5, 8: 0.2, 9: 0.3})
    interrupted(tmp_path / "run")
    with (tmp_path / "run" / "checkpoint-4" / "model.safetensors").open("r+b") as weights:
        weights.truncate(100)
    run = run_sft(tmp_path / "run", metric_for_best_model="accuracy", **BEST)
    assert run.record["best"]["step"] == 9
    assert "checkpoint-4 was the best and is damaged (model.safetensors has 100 bytes" in caplog.text


def test_the_best_checkpoint_survives_an_interruption_and_a_move(
    best_at, interrupted, run_sft, weights_of, tmp_path
):
    best_at({2: 0.1, 4: 0.7, 6: 0.5, 8: 0.2, 9: 0.3})
    whole = run_sft(tmp_path / "whole", metric_for_best_model="accuracy", **BEST)
    interrupted(tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]
    (tmp_path / "run").rename(tmp_path / "moved")
    run = run_sft(tmp_path / "moved", metric_for_best_model="accuracy", **BEST)
    assert run.record["best"]["step"] == 4
    one, other = weights_of(run.path), weights_of(whole.path)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert [row["step"] for row in evaluations(run.path)] == [2, 4, 6, 8, 9]
    assert len(lines_of(run.path / "samples.jsonl")) == 5 * 8


def test_only_what_is_measured_can_be_best(run_sft, run_grpo, trained, tmp_path):
    with pytest.raises(ValueError, match=r"metric_for_best_model must be one of loss, loss/text, .*accuracy"):
        run_sft(tmp_path / "a", metric_for_best_model="bleu", **BEST)
    with pytest.raises(ValueError, match=r"must be one of accuracy, tokens, .*'loss'"):
        run_grpo(tmp_path / "b", trained("atp_latent"), **BEST)


def test_lower_is_better_for_losses_and_lengths(sft_config, tmp_path):
    better = {
        name: sft_config(tmp_path, metric_for_best_model=name).greater_is_better
        for name in ("loss", "eval_loss/text", "tokens", "accuracy", "reconstruction")
    }
    assert better == {
        "loss": False,
        "eval_loss/text": False,
        "tokens": False,
        "accuracy": True,
        "reconstruction": True,
    }


@pytest.mark.parametrize("method", ["cot", "atp_latent"])
def test_rl_is_evaluated_too(method, run_grpo, trained, tmp_path):
    run = run_grpo(
        tmp_path / "run",
        trained(method),
        max_steps=4,
        metric_for_best_model="accuracy",
        save_strategy="best",
        **{**BEST, "eval_dataset_size": 8},
    )
    rows = evaluations(run.path)
    assert [row["step"] for row in rows] == [2, 4]
    assert ("eval_latents" in rows[0]) == (method == "atp_latent")
    assert "eval_loss" not in rows[0]
    assert run.record["best"]["step"] in (2, 4)
    assert load_model(run.path).reasoner.config.method == method


def test_problems_that_are_too_long_are_left_out(
    sft_config, data_arguments, make_system, clock_tokenizer, tmp_path
):
    processor = make_processor(clock_tokenizer, make_system("cot").reasoner)
    short = replace(data_arguments, max_text_tokens=12)
    validation = load_validation(sft_config(tmp_path, **EVALUATES), short, processor, [])
    assert 0 < len(validation) < 20
    assert encode_problems(validation.problems, processor, short)[1] == validation.problems


def test_two_processes_take_the_variance_of_rewards_apart_as_one_does(
    make_system, as_loaded, grpo_config, mixed_problems, monkeypatch, tmp_path
):
    loaded = as_loaded(make_system("atp_latent", initial_log_variance=0.0))
    config = grpo_config(tmp_path / "run", signal_problems=0)  # the gradients need processes that gather
    rewards = RewardSet([lambda prompts, completions, **kwargs: [len(each) / 9 for each in completions]])
    trainer = GRPOTrainer(
        loaded, config, mixed_problems, rewards, validation=ValidationSet(mixed_problems, [])
    )
    monkeypatch.setattr(instruments, "VARIANCE_PROBLEMS", 5)
    found = []
    monkeypatch.setattr(trainer, "all_reduce", lambda sums: found.append(sums) or sums)
    for process, processes in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setattr(GRPOConfig, "process_index", process)
        monkeypatch.setattr(GRPOConfig, "world_size", processes)
        trainer.objective_means(trainer.validation.part(process, processes))
    one, *two = found
    for name, (total, count) in one.items():
        assert sum(part[name][0] for part in two) == pytest.approx(total, rel=1e-3, abs=1e-5), name
        assert sum(part[name][1] for part in two) == count == 5
