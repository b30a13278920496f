"""Two processes on the CPU give what one gives: the effective batch decides, not how it is spread.

Plain stochastic gradient descent throughout: Adam would divide a gradient by its own size, and so enlarge the
last bit of gradients that are all but zero.
"""

import json
import os
import socket
import subprocess
import sys

import pytest
import yaml

# Accelerate turns FSDP on for accelerators only; here it is turned on for processes on the CPU.
PROGRAM = """
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType

initialise = AcceleratorState.__init__

def with_fsdp(self, *args, fsdp_plugin=None, **kwargs):
    initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)

AcceleratorState.__init__ = with_fsdp

import os
from latentplan.training import runs

class Dying(runs.MetricsFile):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == int(os.environ.get("DIES_AFTER", -1)):
            os._exit(9)

runs.MetricsFile = Dying

from latentplan.cli.app import main
main()
"""
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
ENGINES = {"ddp": {}, "fsdp2": FSDP2}
SFT = {
    "method": "atp_latent",
    "max_latent_steps": 3,
    "curriculum_steps": [3],
    "optim": "sgd",
    "learning_rate": 0.05,
}
GRPO = {
    "max_steps": 6,
    "num_generations": 4,
    "answers_per_latent": 2,
    "max_completion_length": 4,
    "reward_funcs": ["varied_rewards:of_completion"],
    "optim": "sgd",
    "learning_rate": 0.05,
}
SHARED = {"logging_steps": 1, "save_steps": 2, "seed": 3, "use_cpu": True}
# A reward that differs between the trajectories of a group, so that every group has advantages.
REWARDS = """
def of_completion(completions, num_latents, **kwargs):
    return [sum(map(ord, text)) % 7 + used for text, used in zip(completions, num_latents)]
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture
def two_processes(tmp_path):
    """Runs `latentplan` with a recipe in two processes, joined by gloo, as torchrun would start them."""

    def run(command, settings, engine="ddp", dies_after=None):
        recipe, port = tmp_path / "recipe.yaml", str(free_port())
        recipe.write_text(yaml.safe_dump(settings))
        started = []
        for rank in ("0", "1"):
            group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            address = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
            paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
            fate = {} if dies_after is None else {"DIES_AFTER": str(dies_after)}
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, command, "--config", str(recipe)],
                    env={**os.environ, **group, **address, **ENGINES[engine], **paths, **fate},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        try:
            outputs = [process.communicate(timeout=240)[0] for process in started]
        finally:
            for process in started:
                process.kill()
        code = 0 if dies_after is None else 9
        assert [process.returncode for process in started] == [code, code], "\n".join(outputs)

    return run


@pytest.fixture
def varied_rewards(tmp_path, monkeypatch):
    (tmp_path / "varied_rewards.py").write_text(REWARDS)
    monkeypatch.syspath_prepend(tmp_path)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_same_curves(one, other, names, tolerance=1e-5):
    first, second = metrics(one), metrics(other)
    assert [row["step"] for row in first] == [row["step"] for row in second]
    for name in names:
        expected = [row[name] for row in first]
        assert [row[name] for row in second] == pytest.approx(expected, rel=tolerance, abs=tolerance), name


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_supervised_training_depends_on_the_effective_batch_alone(
    engine, two_processes, run_sft, scratch_model, assert_same_weights, tmp_path
):
    """One process with batch 8, with 2 · 4 accumulated, and two processes with batch 4."""
    settings = {**SHARED, **SFT}
    data = {"dataset_config": "clock", "dataset_size": 40, "backbone_config": scratch_model.backbone_config}
    two = tmp_path / "two"
    sizes = {"output_dir": str(two), "per_device_train_batch_size": 4}
    two_processes("sft", {**settings, **data, **sizes}, engine)
    assert json.loads((two / "run.json").read_text())["status"] == "finished"
    one = run_sft(tmp_path / "one", **settings, per_device_train_batch_size=8).path
    halves = run_sft(
        tmp_path / "halves", **settings, per_device_train_batch_size=4, gradient_accumulation_steps=2
    ).path
    for other in (two, halves):
        assert_same_weights(one, other, tolerance=1e-5)
        assert_same_curves(one, other, ["loss", "grad_norm", "loss/text", "loss/step_decoder", "num_tokens"])


@pytest.mark.parametrize(("engine", "estimator"), [("ddp", "score_function"), ("fsdp2", "pathwise")])
def test_reinforcement_depends_on_the_effective_batch_alone(
    engine,
    estimator,
    two_processes,
    run_grpo,
    trained,
    varied_rewards,
    assert_same_weights,
    weights_of,
    tmp_path,
):
    """16 trajectories of 4 questions: at once, in 2 · 8 accumulated, and 8 on each of two processes.

    The processes' chains of latents differ in length, so a rollout takes differently many passes on each.
    """
    start = trained("atp_latent")
    settings = {**SHARED, **GRPO, "estimator": estimator}
    data = {"dataset_config": "clock", "dataset_size": 40, "model_name_or_path": str(start)}
    two = tmp_path / "two"
    sizes = {"output_dir": str(two), "per_device_train_batch_size": 8}
    two_processes("grpo", {**settings, **data, **sizes}, engine)
    one = run_grpo(tmp_path / "one", start, **settings, per_device_train_batch_size=16).path
    halves = run_grpo(
        tmp_path / "halves",
        start,
        **settings,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
    ).path
    for other in (two, halves):
        assert_same_weights(one, other, tolerance=1e-5)
        assert_same_curves(one, other, ["loss", "reward", "reward_std", "latents/mean_length", "num_tokens"])
    assert all(row["grad_norm"] > 0 for row in metrics(one))
    moved = [float((value - weights_of(start)[name]).abs().max()) for name, value in weights_of(one).items()]
    assert max(moved) > 1e-3


@pytest.mark.parametrize(("engine", "resumed_by"), [("ddp", "one"), ("fsdp2", "two")])
def test_a_killed_run_of_two_processes_is_resumed_by_any_number(
    engine, resumed_by, two_processes, run_sft, scratch_model, assert_same_weights, tmp_path
):
    """A checkpoint does not know how many devices wrote it: AdamW's moments, the data's place, the stage."""
    settings = {**SHARED, **SFT, "optim": "adamw_torch", "adam_epsilon": 1e-2, "effective_batch_size": 8}
    data = {"dataset_config": "clock", "dataset_size": 40, "backbone_config": scratch_model.backbone_config}
    folder = tmp_path / "two"
    here = {**settings, **data, "output_dir": str(folder), "per_device_train_batch_size": 4}
    two_processes("sft", here, engine, dies_after=5)
    assert (folder / "checkpoint-4" / "optimizer.safetensors").is_file()
    if resumed_by == "two":
        two_processes("sft", here, engine)
    else:
        run_sft(folder, **settings, per_device_train_batch_size=4)
    whole = run_sft(tmp_path / "whole", **settings, per_device_train_batch_size=8).path
    assert_same_weights(whole, folder, tolerance=1e-5)
    assert_same_curves(whole, folder, ["loss"])
