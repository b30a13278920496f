"""What a run inherits from the model that it starts from, and that the start cannot change under it."""

import json
from dataclasses import replace

import pytest
import torch

from latentplan.modeling.loading import load_model
from latentplan.problems.minigsm import PRESETS, generate
from latentplan.training.configs import ModelArguments
from latentplan.training.model_init import as_dtype, initialise_system
from latentplan.training.run_directory import RunConflictError
from latentplan.training.run_training import train_sft


@pytest.fixture
def start(tmp_path, scratch_model, data_arguments, sft_config):
    return train_sft(scratch_model, data_arguments, sft_config(tmp_path / "start"))


def same(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_heads_and_decoder_are_inherited(start, sft_config, tmp_path):
    system, _ = initialise_system(ModelArguments(str(start.path)), sft_config(tmp_path / "next"), [])
    saved = load_model(start.path)
    assert same(system.reasoner, saved.reasoner)
    assert same(system.step_decoder, saved.step_decoder)


def test_another_head_starts_afresh_and_says_so(start, sft_config, tmp_path, caplog):
    config = sft_config(
        tmp_path / "next",
        latent_head="projected",
        objectives={"text": 1.0, "step_decoder": 1.0, "stop": 1.0},
    )
    system, _ = initialise_system(ModelArguments(str(start.path)), config, [])
    saved = load_model(start.path)
    assert "latent_head of the starting model is left behind" in caplog.text
    assert same(system.reasoner.stop_head, saved.reasoner.stop_head)
    assert not torch.equal(system.reasoner.latent_head.mean.weight, saved.reasoner.latent_head.mean.weight)


def test_a_run_is_held_to_its_data_and_to_its_start(scratch_model, data_arguments, sft_config, tmp_path):
    file = tmp_path / "train.jsonl"
    problems = list(generate(PRESETS["clock"], split="train", count=40, seed=0))

    def write(rows):
        file.write_text("".join(json.dumps(problem.to_json()) + "\n" for problem in rows))

    def train(stopped):
        settings = sft_config(tmp_path / "run")
        run = train_sft(scratch_model, replace(data_arguments, dataset_name=[str(file)]), settings)
        if stopped:
            run.update(status="running")
        return run

    write(problems)
    train(stopped=True)
    write(problems[::-1])
    with pytest.raises(RunConflictError, match="other training data under the same name"):
        train(stopped=False)


def test_dtypes_by_name():
    assert as_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(ValueError, match=r"dtype must be one of .*float32.*, got 'bf16'"):
        as_dtype("bf16")
