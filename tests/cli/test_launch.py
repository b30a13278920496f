"""Starting a run on several devices: the command line that is handed to `accelerate launch`."""

import subprocess
import sys

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from typer.testing import CliRunner

from latentplan.cli import train as launch
from latentplan.cli.app import app


@pytest.fixture
def started(monkeypatch):
    """What would have replaced this process."""
    commands = []
    monkeypatch.setattr(launch, "_become", commands.append)
    return commands


def test_the_rest_of_the_command_is_passed_on(started):
    arguments = [
        "--accelerate_config",
        "fsdp2",
        "--config=quickstart/cot",
        "--num_processes=4",
        "--seed",
        "1",
    ]
    launch.on_several_devices("sft", arguments)
    (command,) = started
    assert command[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert command[command.index("--config_file") + 1].endswith("fsdp2.yaml")
    assert command[command.index("--num_processes") + 1] == "4"
    assert command[-6:] == ["-m", "latentplan", "sft", "--config=quickstart/cot", "--seed", "1"]


def test_a_file_of_one_s_own_is_taken(started, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("num_processes: 2\n")
    launch.on_several_devices("grpo", ["--accelerate_config", str(mine)])
    assert str(mine) in started[0]
    assert started[0][-1] == "grpo"


@pytest.mark.parametrize("devices", [1, 8])
def test_our_configurations_take_all_devices_and_a_file_says_how_many(
    devices, started, monkeypatch, tmp_path
):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: devices)
    launch.on_several_devices("sft", ["--accelerate_config", "ddp"])
    assert started[0][started[0].index("--num_processes") + 1] == str(devices)
    mine = tmp_path / "two_machines.yaml"
    mine.write_text("num_machines: 2\nnum_processes: 16\n")
    launch.on_several_devices("sft", ["--accelerate_config", str(mine)])
    assert "--num_processes" not in started[1]


def test_no_device_is_said_so(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 0)
    result = CliRunner().invoke(app, ["sft", "--accelerate_config", "ddp"])
    assert result.exit_code != 0
    assert "no accelerator is visible" in " ".join(result.output.split())


def test_without_a_configuration_nothing_is_started(started):
    launch.on_several_devices("sft", ["--config", "quickstart/cot"])
    assert started == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--accelerate_config", "fsdp9"], "ddp, deepspeed_zero2, deepspeed_zero3, fsdp2"),
        (["--accelerate_config"], "--accelerate_config needs a value"),
        (["--num_processes", "2"], "--num_processes needs --accelerate_config"),
    ],
)
def test_mistakes_say_what_to_do(arguments, message):
    result = CliRunner().invoke(app, ["sft", *arguments])
    assert result.exit_code != 0
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize("name", launch.config_names())
def test_the_configurations_are_read_by_accelerate(name):
    config = load_config_from_file(str(launch.find_config(name)))
    raw = yaml.safe_load(launch.find_config(name).read_text())
    assert str(config.distributed_type).endswith(raw["distributed_type"])
    assert config.num_processes == 8
    if name == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
        assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    if name.startswith("deepspeed"):
        assert config.deepspeed_config["zero_stage"] == int(name[-1])


def test_the_package_can_be_run_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "latentplan", "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "quickstart" in done.stdout
