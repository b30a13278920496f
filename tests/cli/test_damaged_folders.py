"""Damaged model folders: one message that names the file and says what is wrong, no traceback, no code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentplan.modeling.loading import load_model

ROOT = Path(__file__).parents[2]
SAMPLE = 100


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import damaged_model_folders

    yield damaged_model_folders
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def models(script, tmp_path_factory):
    """A tiny model of each kind."""
    return script.make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def watch(script):
    return script.Watch()


def test_a_sample_of_all_damages(script, models, watch, tmp_path, monkeypatch):
    """As the benchmark, on a few of its folders and with `ask`, which opens a model as all commands do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    script.write_payload(tmp_path)
    outcomes = []
    for number in range(SAMPLE):
        folder = tmp_path / str(number)
        what = script.damaged(number, 1, models, folder)
        outcomes.append(script.run_one(number, "ask", what, folder, tmp_path, watch))
    # Seconds and memory are measured by the benchmark alone: the machine of a test may be busy.
    assert {each.what: each.traceback or each.code for each in outcomes if each.traceback or each.code} == {}
    assert all("error: " in each.output for each in outcomes if each.status != 0)
    assert 0.1 < sum(each.status == 0 for each in outcomes) / SAMPLE < 0.9


@pytest.mark.slow
def test_ten_thousand_folders_through_every_command(tmp_path):
    """About an hour and a half of processor time."""
    command = [sys.executable, "benchmarks/damaged_model_folders.py", "--output", str(tmp_path / "d.jsonl")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def edit(file, **values):
    content = json.loads(file.read_text())
    for name, value in values.items():
        *above, key = name.split("/")
        place = content
        for each in above:
            place = place[int(each)] if isinstance(place, list) else place[each]
        if value is DELETED:
            del place[key]
        else:
            place[key] = value
    file.write_text(json.dumps(content))


def change(file, name, value):
    weights = load_file(file)
    weights[name] = value(weights[name])
    save_file(weights, file, metadata={"format": "pt"})


def cut(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


DELETED = object()
CONFIG = {
    "backbone_config": (DELETED, "backbone_config must describe the language model, got None"),
    "backbone_config/model_type": (DELETED, "transformers knows no model_type None"),
    "backbone_config/vocab_size": ("64", "Field 'vocab_size' expected int"),
    "backbone_config/num_hidden_layers": (10**9, "backbone_config.num_hidden_layers must be at most 2048"),
    "backbone_config/hidden_size": (10**9, "larger than its weights: model.safetensors holds"),
    "backbone_config/num_labels": (10**9, "backbone_config.num_labels must be at most"),
    "backbone_config/hidden_act": ("x", "cannot be built"),
    "model_type": ("latent_reasoner_", "no latentplan model"),
    "latents_per_step": (True, "latents_per_step must be a whole number from 1 to 1024, got True"),
    "max_latent_steps": ("x", "max_latent_steps must be a whole number from 0 to 4096, got 'x'"),
    "initial_latent_scale": (float("nan"), "initial_latent_scale must be a number above 0"),
    "latent_head": ("gausian", "latent_head must be one of"),
    "dtype": ("int8", "dtype must be the name of a floating-point type, got 'int8'"),
    "stop_head": ("no", "stop_head must be true or false"),
    "answer_marker": (" ", "answer_marker must be a text"),
    "pad_token_id": (None, "pad_token_id is None, and the tokenizer says 0"),
    "eos_token_id": (7, "eos_token_id is 7, and answers end with 1"),
    "start_latent_token_id": (3, "start_latent_token_id is 3, and the tokenizer says"),
    "lora": ({"r": 2, "megatron_config": {}}, "lora must be a mapping of alpha_pattern, lora_alpha"),
    "quantization_config": ({"quant_method": "gptq"}, "quantised weights cannot be loaded"),
    "output_attentions": (True, "it could not be saved again"),
    "to_dict": (3, "to_dict: there is no such setting"),
    "backbone_config/sub_configs": ({}, "backbone_config.sub_configs: there is no such setting"),
}
MORE = {
    "config cut off": (lambda run: cut(run / "config.json"), "config.json: it is not JSON"),
    "config a list": (
        lambda run: (run / "config.json").write_text("[1]"),
        "config.json: it holds list instead",
    ),
    "config gone": (lambda run: (run / "config.json").unlink(), "config.json: there is no such file"),
    "config a pipe": (
        lambda run: ((run / "config.json").unlink(), os.mkfifo(run / "config.json")),
        "config.json: it is no regular file",
    ),
    "weights cut off": (
        lambda run: cut(run / "model.safetensors"),
        "model.safetensors: it is damaged or was cut",
    ),
    "weights gone": (lambda run: (run / "model.safetensors").unlink(), "model.safetensors: it is missing"),
    "weights pickled": (
        lambda run: (run / "model.safetensors").rename(run / "pytorch_model.bin"),
        "there is pytorch_model.bin, whose format can hold code and is not read",
    ),
    "weights whole numbers": (
        lambda run: change(run / "model.safetensors", "stop_head.layers.2.bias", lambda old: old.long()),
        "stop_head.layers.2.bias holds I64, which are no weights",
    ),
    "weights not finite": (
        lambda run: change(run / "model.safetensors", "stop_head.layers.2.bias", lambda old: old / 0),
        "stop_head.layers.2.bias holds numbers that are not finite",
    ),
    "weights of another shape": (
        lambda run: change(run / "model.safetensors", "stop_head.layers.2.bias", lambda old: torch.ones(3)),
        "stop_head.layers.2.bias [3], expected [2]",
    ),
    "tokenizer cut off": (lambda run: cut(run / "tokenizer.json"), "tokenizer.json: it is not JSON"),
    "tokenizer gone": (
        lambda run: (run / "tokenizer.json").unlink(),
        "tokenizer.json: there is no such file",
    ),
    "tokenizer settings gone": (
        lambda run: (run / "tokenizer_config.json").unlink(),
        "tokenizer_config.json: there is no such file",
    ),
    "another tokenizer": (
        lambda run: edit(run / "tokenizer.json", **{"added_tokens/3/content": "<|other|>"}),
        "start_latent_token_id is 61, and the tokenizer says 64",
    ),
    "decoder's weights gone": (
        lambda run: (run / "step_decoder/model.safetensors").unlink(),
        "step_decoder/model.safetensors: it is missing",
    ),
    "decoder of other latents": (
        lambda run: edit(run / "step_decoder/config.json", latents_per_step=1),
        "step_decoder/config.json: latents_per_step is 1, and the reasoner's latents have 2",
    ),
    "adapter beside the model": (
        lambda run: (run / "adapter_config.json").write_text("{}"),
        "next to a latentplan model, which is complete without it",
    ),
    "index beyond the folder": (
        lambda run: (
            (run / "model.safetensors").unlink(),
            (run / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../a.safetensors"}}'),
        ),
        "'../a.safetensors', which is no shard's name",
    ),
}


@pytest.fixture
def folder(models, tmp_path):
    """A copy of the ATP-Latent model."""
    return shutil.copytree(models[0] / "model", tmp_path / "model")


@pytest.mark.parametrize("setting", CONFIG)
def test_a_configuration_is_checked_when_it_is_read(setting, folder):
    value, message = CONFIG[setting]
    edit(folder / "config.json", **{setting: value})
    assert message in refusal(folder)


@pytest.mark.parametrize("what", MORE)
def test_each_damage_has_its_message(what, folder):
    damage, message = MORE[what]
    damage(folder)
    assert message in refusal(folder)


def refusal(folder):
    """What `load_model` says, in at most two seconds of processor time and one line."""
    before = time.process_time()
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        load_model(folder)
    assert time.process_time() - before < 2
    text = str(refused.value)
    assert "\n" not in text
    assert str(folder) in text
    return text


def test_nothing_is_allocated_for_what_is_not_stored(folder):
    """A vocabulary of 10¹² would take terabytes; the check sees shapes alone."""
    edit(folder / "config.json", **{"backbone_config/vocab_size": 10**12})
    assert "larger than its weights" in refusal(folder)


def test_an_undamaged_folder_loads(folder):
    assert load_model(folder).step_decoder is not None
