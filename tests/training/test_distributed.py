"""Two processes on the CPU give what one gives: the effective batch decides, not how it is spread."""

import json
import os
import socket
import subprocess
import sys

import pytest
import yaml

PROGRAM = "from latentplan.cli.app import main; main()"


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


@pytest.fixture
def two_processes(tmp_path):
    """Runs `latentplan` with a recipe in two processes, joined by gloo, as torchrun would start them."""

    def run(command, settings):
        recipe, port = tmp_path / "recipe.yaml", str(free_port())
        recipe.write_text(yaml.safe_dump(settings))
        started = []
        for rank in ("0", "1"):
            group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
            address = {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", PROGRAM, command, "--config", str(recipe)],
                    env={**os.environ, **group, **address},
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
        assert [process.returncode for process in started] == [0, 0], "\n".join(outputs)

    return run


def test_two_processes_train_the_weights_of_one(
    two_processes, run_sft, scratch_model, assert_same_weights, tmp_path
):
    settings = {
        "method": "atp_latent",
        "max_latent_steps": 3,
        "curriculum_steps": [3],
        "optim": "sgd",
        "learning_rate": 0.05,
        "logging_steps": 1,
        "save_steps": 2,
        "seed": 3,
        "use_cpu": True,
    }
    data = {"dataset_config": "clock", "dataset_size": 40, "backbone_config": scratch_model.backbone_config}
    folder = tmp_path / "two"
    two_processes("sft", {**settings, **data, "output_dir": str(folder), "per_device_train_batch_size": 4})
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 10))
    one = run_sft(tmp_path / "one", **settings, per_device_train_batch_size=8)
    assert_same_weights(folder, one.path, tolerance=1e-5)
    expected = [json.loads(line) for line in (one.path / "metrics.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], rel=1e-3)
