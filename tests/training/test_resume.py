"""An interrupted run goes on as if nothing had happened: the same weights, every step logged once."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.training import run_training as runs
from latentplan.training.run_directory import MetricsFile, RunConflictError, RunDirectory


@pytest.fixture
def interrupt_after(monkeypatch):
    """Stops the next runs, as Ctrl-C would, at the end of an optimisation step; None lets them through."""

    def arrange(step: int | None):
        class Interrupting(MetricsFile):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == step:
                    raise KeyboardInterrupt

        monkeypatch.setattr(runs, "MetricsFile", Interrupting)

    return arrange


@pytest.fixture(scope="module")
def sft_settings(scratch_model):
    """With dropout, so that torch's own random numbers matter too."""
    model = type(scratch_model)(backbone_config={**scratch_model.backbone_config, "attention_dropout": 0.1})
    return {"model": model}


@pytest.fixture(scope="module")
def whole_sft(tmp_path_factory, run_sft, sft_settings):
    return run_sft(tmp_path_factory.mktemp("whole") / "run", **sft_settings).path


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("step", [1, 4, 5, 9], ids=lambda step: f"after_step_{step}")
def test_an_interrupted_supervised_run_ends_with_the_same_weights(
    step, interrupt_after, run_sft, sft_settings, whole_sft, assert_same_weights, tmp_path
):
    interrupt_after(step)
    with pytest.raises(KeyboardInterrupt):
        run_sft(tmp_path / "run", **sft_settings)
    assert not (tmp_path / "run" / "model").exists()
    interrupt_after(None)
    run = run_sft(tmp_path / "run", **sft_settings)
    assert run.record["status"] == "finished"
    assert_same_weights(run.path, whole_sft)
    assert steps_of(run.path) == list(range(1, 10))


def test_two_interruptions_and_a_half_written_line(
    interrupt_after, run_sft, sft_settings, whole_sft, assert_same_weights, tmp_path
):
    for step in (3, 7):
        interrupt_after(step)
        with pytest.raises(KeyboardInterrupt):
            run_sft(tmp_path / "run", **sft_settings)
        with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
            file.write('{"step": 8, "lo')
    interrupt_after(None)
    run = run_sft(tmp_path / "run", **sft_settings)
    assert_same_weights(run.path, whole_sft)
    assert steps_of(run.path) == list(range(1, 10))


def test_a_half_written_checkpoint_is_ignored_and_removed(
    interrupt_after, run_sft, sft_settings, whole_sft, assert_same_weights, tmp_path
):
    interrupt_after(5)
    with pytest.raises(KeyboardInterrupt):
        run_sft(tmp_path / "run", **sft_settings)
    half = tmp_path / "run" / ".checkpoint-in-progress" / "checkpoint-6"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    interrupt_after(None)
    run = run_sft(tmp_path / "run", **sft_settings)
    assert_same_weights(run.path, whole_sft)
    assert not half.parent.exists()


def test_a_run_killed_while_its_model_is_written_is_completed(
    monkeypatch, run_sft, sft_settings, whole_sft, assert_same_weights, tmp_path
):
    def stop(self, save):
        raise KeyboardInterrupt

    settings = {**sft_settings, "save_steps": 3}  # so that the last step has a checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "finish_model", stop)
        with pytest.raises(KeyboardInterrupt):
            run_sft(tmp_path / "run", **settings)
    run = run_sft(tmp_path / "run", **settings)
    assert_same_weights(run.path, whole_sft)
    assert steps_of(run.path) == list(range(1, 10))


def test_a_finished_run_is_left_alone(run_sft, sft_settings, tmp_path, monkeypatch):
    run_sft(tmp_path / "run", **sft_settings, save_strategy="no")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    monkeypatch.setattr(runs, "SFTTrainer", None)  # Training again would fail.
    again = run_sft(tmp_path / "run", **sft_settings, save_strategy="no")
    assert again.finished
    assert before == {
        path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()
    }


def test_other_settings_are_a_conflict_that_names_them(run_sft, sft_settings, tmp_path):
    run_sft(tmp_path / "run", **sft_settings, save_strategy="no")
    with pytest.raises(RunConflictError, match=r"learning_rate: 0\.003 there, 0\.1 now") as conflict:
        run_sft(tmp_path / "run", **sft_settings, save_strategy="no", learning_rate=0.1, seed=8)
    assert "seed: 3 there, 8 now" in str(conflict.value)
    assert "weight_decay" not in str(conflict.value)
    assert "--overwrite_output_dir" in str(conflict.value)


def test_where_a_run_computes_is_no_conflict(run_sft, sft_settings, tmp_path):
    threads = torch.get_num_threads()
    run_sft(tmp_path / "run", **sft_settings, save_strategy="no")
    assert run_sft(tmp_path / "run", **sft_settings, save_strategy="no", torch_threads=threads).finished


def test_overwriting_starts_again(run_sft, sft_settings, tmp_path):
    run_sft(tmp_path / "run", **sft_settings, save_strategy="no")
    run = run_sft(tmp_path / "run", **sft_settings, save_strategy="no", seed=8, overwrite_output_dir=True)
    assert run.settings["seed"] == 8
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["seed"] == 8
    assert steps_of(run.path) == list(range(1, 10))


def test_overwriting_deletes_no_folder_that_is_not_a_run(run_sft, sft_settings, tmp_path):
    treasure = tmp_path / "run" / "thesis.tex"
    treasure.parent.mkdir()
    treasure.write_text("years of work")
    run_sft(tmp_path / "run", **sft_settings, save_strategy="no", overwrite_output_dir=True)
    assert treasure.read_text() == "years of work"


def test_a_run_that_never_trained_does_not_stand_in_the_way(run_sft, sft_settings, tmp_path):
    """A mistake in a setting leaves no run behind: with the mistake corrected, the same command works."""
    with pytest.raises(ValueError, match="lr_scheduler_type"):
        run_sft(tmp_path / "run", **sft_settings, save_strategy="no", lr_scheduler_type="polynomial")
    with pytest.raises(ValueError, match="method must be one of"):
        run_sft(tmp_path / "run", **sft_settings, save_strategy="no", method="cto")
    assert run_sft(tmp_path / "run", **sft_settings, save_strategy="no", method="cot").finished


GRPO = {
    "score_function": {"latent_gradient": "score_function", "log_completions": True},
    "pathwise": {"latent_gradient": "pathwise", "answers_per_latent": 2, "num_iterations": 2},
    "plans": {
        "latent_gradient": "pathwise",
        "plan_temperature": 1.0,
        "learning_rate_factors": {"latent_head": 2.0},
    },
    "likelihood": {"objective": "reference_likelihood", "maximize": "likelihood"},
    "accumulated": {"gradient_accumulation_steps": 2, "beta": 0.1},
}


@pytest.mark.parametrize("settings", GRPO.values(), ids=GRPO.keys())
def test_an_interrupted_rl_run_ends_with_the_same_weights(
    settings, interrupt_after, run_grpo, trained, assert_same_weights, tmp_path
):
    start = trained("atp_latent")
    whole = run_grpo(tmp_path / "whole", start, **settings)
    for step in (1, 5):  # before the first checkpoint, and between two
        interrupt_after(step)
        with pytest.raises(KeyboardInterrupt):
            run_grpo(tmp_path / "run", start, **settings)
    interrupt_after(None)
    run = run_grpo(tmp_path / "run", start, **settings)
    assert_same_weights(run.path, whole.path)
    assert steps_of(run.path) == list(range(1, 7))
    samples = [path / "samples.jsonl" for path in (whole.path, run.path)]
    if settings.get("log_completions"):
        assert samples[0].read_text() == samples[1].read_text()


def by_old_names(config, estimator):
    """Writes a run's saved settings as the version before did."""
    saved = yaml.safe_load(config.read_text())
    for name in ("objective", "latent_gradient", "maximize"):
        saved.pop(name, None)
    others = {"likelihood_weight": 0.0, "value_warmup_steps": 0, "value_head_sizes": None}
    config.write_text(yaml.safe_dump({**others, **saved, "estimator": estimator}))


OLD = {
    "score_function": ("atp_latent", {}),
    "pathwise": ("atp_latent", {"latent_gradient": "pathwise", "likelihood_weight": 0.5}),
    "value": ("coconut", {"objective": "latent_value", "value_warmup_steps": 1, "answers_per_latent": 4}),
    "log_likelihood": ("atp_latent", {"objective": "reference_likelihood"}),
}


@pytest.mark.parametrize("estimator", OLD)
def test_an_interrupted_run_of_the_version_before_goes_on(
    estimator, interrupt_after, run_grpo, trained, assert_same_weights, tmp_path
):
    """Its configuration says `estimator`, and has the settings that belong to other objectives now."""
    method, settings = OLD[estimator]
    start, settings = trained(method), {**settings, "max_steps": 4, "signal_problems": 0}
    whole = run_grpo(tmp_path / "whole", start, **settings)
    interrupt_after(3)
    with pytest.raises(KeyboardInterrupt):
        run_grpo(tmp_path / "run", start, **settings)
    interrupt_after(None)
    by_old_names(tmp_path / "run" / "config.yaml", estimator)
    other = {"objective": "grpo", "latent_gradient": "none"}
    kept = {name: value for name, value in settings.items() if name in ("max_steps", "answers_per_latent")}
    with pytest.raises(RunConflictError, match=r"latent_gradient: '\w+' there, 'none' now"):
        run_grpo(tmp_path / "run", start, **{**kept, **other})
    run = run_grpo(tmp_path / "run", start, **settings)
    assert_same_weights(run.path, whole.path)
    assert steps_of(run.path) == [1, 2, 3, 4]


def test_a_killed_command_goes_on_when_it_is_given_again(
    sft_settings, run_sft, assert_same_weights, tmp_path
):
    """`latentplan sft`, killed with SIGKILL at a random moment between two of its 45 checkpoints."""
    settings = {
        "method": "atp_latent",
        "max_latent_steps": 3,
        "curriculum_steps": [15],
        "per_device_train_batch_size": 8,
        "learning_rate": 0.003,
        "logging_steps": 1,
        "save_steps": 1,
        "seed": 3,
        "use_cpu": True,
        "torch_threads": 1,
        "dataset_config": "clock",
        "dataset_size": 40,
        "backbone_config": sft_settings["model"].backbone_config,
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(settings))
    folder = tmp_path / "killed"
    program = "from latentplan.cli.app import main; main()"
    arguments = ["sft", "--config", str(recipe), "--output_dir", str(folder)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=log, stderr=log)
        while process.poll() is None and not list(folder.glob("checkpoint-*")):
            time.sleep(0.01)
        time.sleep(random.random())
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert not (folder / "model").exists()
    threads = torch.get_num_threads()
    done = CliRunner().invoke(app, arguments)
    whole = run_sft(
        tmp_path / "whole", **sft_settings, curriculum_steps=[15], save_strategy="no", torch_threads=1
    )
    torch.set_num_threads(threads)
    assert done.exit_code == 0, done.output
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    assert steps_of(folder) == list(range(1, 46))
    assert_same_weights(folder, whole.path)


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    """The lock goes with its process, however that ends."""
    path = tmp_path / "run"
    program = (
        "import sys, time\n"
        "from latentplan.training.run_directory import RunDirectory\n"
        "run = RunDirectory(sys.argv[1], {'seed': 1}, 'first')\n"
        "print('open', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        for overwrite in (False, True):
            with pytest.raises(RunConflictError, match="another process trains in"):
                RunDirectory(path, {"seed": 1}, "second", overwrite)
        other.kill()
    run = RunDirectory(path, {"seed": 1}, "second")
    run.update(status="running")
    again = RunDirectory(path, {"seed": 1}, "the same process")
    again.finish()
    assert {each.name for each in path.iterdir()} == {"config.yaml", "run.json"}


def test_overwriting_leaves_nothing_but_the_lock(tmp_path):
    run = RunDirectory(tmp_path, {"seed": 1}, "first")
    run.update(status="running")
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    RunDirectory(tmp_path, {"seed": 2}, "second", overwrite=True)
    assert {each.name for each in tmp_path.iterdir()} == {"config.yaml", ".lock"}
