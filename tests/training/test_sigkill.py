"""SIGKILL at 20 random moments of a run: given the same command again, it ends as if nothing had happened."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml

# Everything is imported once; each try is a fork that is killed, or comes to its end. A fork that is killed
# has had time to go on by a few steps, so the kills are spread over the whole run.
PROGRAM = """
import os, random, signal, sys, time
import torch, transformers.trainer, latentplan.training.run_training, latentplan.cli.train
from latentplan.cli.app import main

command, recipe, kills, longest = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
clock = random.Random(11)
done = 0
while True:
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        sys.argv = ["latentplan", command, "--config", recipe]
        try:
            main()
        except SystemExit as leaving:
            os._exit(leaving.code or 0)
        os._exit(0)
    if done < kills:
        time.sleep(clock.uniform(0.05, longest))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        done += 1
    else:
        print("KILLS", done, "CODE", os.waitstatus_to_exitcode(status))
        break
"""
KILLS = 20


@pytest.fixture
def kill_often(tmp_path):
    """Runs a recipe, killing it at random moments; returns how often it was killed before it ended."""

    def run(command, settings, longest):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(settings))
        finished = subprocess.run(
            [sys.executable, "-c", PROGRAM, command, str(recipe), str(KILLS), str(longest)],
            capture_output=True,
            text=True,
            timeout=900,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        last = finished.stdout.splitlines()[-1].split()
        assert last[0] == "KILLS", finished.stdout + finished.stderr
        assert last[3] == "0", finished.stdout + finished.stderr
        return int(last[1])

    return run


def longest_life(whole):
    """Seconds that a try may live, so that a run which takes `whole` seconds has time for all kills.

    A try needs about half a second before it gets on.
    """
    return whole / 12 + 1.0


def steps_of(folder):
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_supervised_run_survives_twenty_kills(
    kill_often, run_sft, scratch_model, assert_same_weights, tmp_path
):
    settings = {
        "method": "atp_latent",
        "max_latent_steps": 3,
        "curriculum_steps": [100],
        "per_device_train_batch_size": 8,
        "learning_rate": 0.003,
        "logging_steps": 1,
        "save_steps": 2,
        "seed": 3,
        "use_cpu": True,
        "torch_threads": 1,  # sums in the same order in both
        "disable_tqdm": True,
    }
    data = {"dataset_config": "clock", "dataset_size": 40, "backbone_config": scratch_model.backbone_config}
    folder = tmp_path / "killed"
    started = time.perf_counter()
    whole = run_sft(tmp_path / "whole", **settings).path
    longest = longest_life(time.perf_counter() - started)
    assert kill_often("sft", {**settings, **data, "output_dir": str(folder)}, longest) == KILLS
    assert_same_weights(whole, folder)
    assert steps_of(folder) == list(range(1, 301))


@pytest.mark.slow
def test_a_reinforced_run_survives_twenty_kills(kill_often, run_grpo, trained, assert_same_weights, tmp_path):
    settings = {
        "max_steps": 200,
        "num_generations": 4,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        "max_completion_length": 4,
        "reward_funcs": ["format"],
        "logging_steps": 1,
        "save_steps": 2,
        "seed": 3,
        "use_cpu": True,
        "torch_threads": 1,  # sums in the same order in both
        "disable_tqdm": True,
    }
    start = trained("atp_latent")
    data = {"dataset_config": "clock", "dataset_size": 40, "model_name_or_path": str(start)}
    folder = tmp_path / "killed"
    started = time.perf_counter()
    whole = run_grpo(tmp_path / "whole", start, **settings).path
    longest = longest_life(time.perf_counter() - started)
    assert kill_often("grpo", {**settings, **data, "output_dir": str(folder)}, longest) == KILLS
    assert_same_weights(whole, folder)
    assert steps_of(folder) == list(range(1, 201))
