"""Runs of seconds: a two-layer backbone from scratch on 40 clock problems, and where its weights ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from latentplan.problems.training_set import DataArguments
from latentplan.training.configs import GRPOConfig, ModelArguments, SFTConfig
from latentplan.training.objectives import own_settings
from latentplan.training.run_training import train_grpo, train_sft

BACKBONE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.1,
}
QUIET = {"use_cpu": True, "disable_tqdm": True, "report_to": "none", "seed": 3}


@pytest.fixture(scope="session")
def data_arguments():
    return DataArguments(dataset_name=["minigsm"], dataset_config="clock", dataset_size=40)


@pytest.fixture(scope="session")
def scratch_model():
    return ModelArguments(backbone_config=BACKBONE)


@pytest.fixture(scope="session")
def sft_config():
    """9 optimisation steps through 3 stages, with a checkpoint every 2."""

    def build(folder, **overrides) -> SFTConfig:
        settings = {
            "output_dir": str(folder),
            "method": "atp_latent",
            "max_latent_steps": 3,
            "curriculum_steps": [3],
            "per_device_train_batch_size": 8,
            "learning_rate": 3e-3,
            "logging_steps": 1,
            "save_steps": 2,
        }
        return SFTConfig(**{**QUIET, **settings, **overrides})

    return build


@pytest.fixture(scope="session")
def grpo_config():
    """6 optimisation steps on 4 questions of 4 trajectories each, with a checkpoint every 2.

    An objective's own settings stand among the others, as in a recipe.
    """

    def build(folder, **overrides) -> GRPOConfig:
        settings = {
            "output_dir": str(folder),
            "max_steps": 6,
            "num_generations": 4,
            "per_device_train_batch_size": 16,
            "learning_rate": 1e-3,
            "max_completion_length": 4,
            "reward_funcs": ["format"],
            "logging_steps": 1,
            "save_steps": 2,
        }
        settings = {**QUIET, **settings, **overrides}
        own = own_settings(settings.get("objective", "grpo"))
        given = {name: settings.pop(name) for name in own if name in settings}
        settings["objective_settings"] = {**given, **settings.get("objective_settings", {})}
        return GRPOConfig(**settings)

    return build


@pytest.fixture(scope="session")
def run_sft(scratch_model, data_arguments, sft_config):
    def run(folder, model=None, **overrides):
        return train_sft(model or scratch_model, data_arguments, sft_config(folder, **overrides))

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, run_sft):
    """Run directories of short supervised runs, one for each method, made when first asked for."""
    made: dict[str, Path] = {}

    def of(method: str) -> Path:
        if method not in made:
            folder = tmp_path_factory.mktemp("trained") / method
            made[method] = run_sft(folder, method=method, save_strategy="no").path
        return made[method]

    return of


@pytest.fixture(scope="session")
def run_grpo(data_arguments, grpo_config):
    def run(folder, start, **overrides):
        model = ModelArguments(model_name_or_path=str(start))
        return train_grpo(model, data_arguments, grpo_config(folder, **overrides))

    return run


@pytest.fixture(scope="session")
def weights_of():
    """All weights of a run's final model, step decoder included."""

    def read(run_path) -> dict[str, torch.Tensor]:
        folder = Path(run_path) / "model"
        weights = load_file(folder / "model.safetensors")
        decoder = folder / "step_decoder" / "model.safetensors"
        if decoder.is_file():
            weights.update({f"step_decoder.{name}": value for name, value in load_file(decoder).items()})
        return weights

    return read


@pytest.fixture(scope="session")
def assert_same_weights(weights_of):
    def compare(one, other, tolerance: float | None = None) -> None:
        first, second = weights_of(one), weights_of(other)
        assert first.keys() == second.keys()
        for name, value in first.items():
            if tolerance is None:
                assert torch.equal(value, second[name]), name
            else:
                assert float((value - second[name]).abs().max()) <= tolerance, name

    return compare


@pytest.fixture
def in_two_processes(tmp_path):
    """Runs a Python program in two processes, joined by gloo, as torchrun would start them.

    The program finds `COMMAND --config RECIPE` in its arguments. Both processes must end with `status`.
    """

    def run(program, command, settings, *flags, status: int = 0, **environment: str) -> None:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(settings))
        group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
        paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
        shared = {**os.environ, **group, **paths, "MASTER_PORT": str(_free_port()), **environment}
        started = [
            subprocess.Popen(
                [sys.executable, "-c", program, command, "--config", str(recipe), *flags],
                env={**shared, "RANK": rank, "LOCAL_RANK": rank, "ACCELERATE_USE_CPU": "true"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in ("0", "1")
        ]
        try:
            outputs = [process.communicate(timeout=240)[0] for process in started]
        finally:
            for process in started:
                process.kill()
        assert [process.returncode for process in started] == [status, status], "\n".join(outputs)

    return run


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]
