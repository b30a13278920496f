"""A checkpoint that holds other tensors than its configuration describes is refused, and they are named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentplan.modeling.loading import load_model
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.saving import CheckpointMismatchError
from latentplan.modeling.step_decoder import StepDecoder


def edit(file, change):
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


@pytest.fixture
def folder(make_system, clock_tokenizer, tmp_path):
    make_system("atp_latent").save_pretrained(tmp_path, clock_tokenizer)
    return tmp_path


def test_a_missing_tensor_is_named(folder):
    edit(folder / "model.safetensors", lambda weights: weights.pop("latent_head.mean.weight"))
    with pytest.raises(CheckpointMismatchError, match=r"1 missing: latent_head\.mean\.weight\)"):
        LatentReasoner.from_pretrained(folder)
    with pytest.raises(CheckpointMismatchError, match="save or copy it again"):
        load_model(folder)


def test_an_unexpected_tensor_is_named(folder):
    edit(folder / "model.safetensors", lambda weights: weights.update({"spare.bias": torch.ones(3)}))
    with pytest.raises(CheckpointMismatchError, match=r"1 unexpected: spare\.bias"):
        load_model(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder):
    edit(
        folder / "model.safetensors",
        lambda weights: weights.update({"stop_head.layers.2.bias": torch.ones(3)}),
    )
    with pytest.raises(CheckpointMismatchError, match=r"stop_head\.layers\.2\.bias \[3\], expected \[2\]"):
        load_model(folder)


def test_a_step_decoder_is_loaded_strictly_too(folder):
    name = "backbone.model.norm.weight"
    edit(folder / "step_decoder/model.safetensors", lambda weights: weights.pop(name))
    for load in (lambda: StepDecoder.from_pretrained(folder / "step_decoder"), lambda: load_model(folder)):
        with pytest.raises(CheckpointMismatchError, match=rf"step_decoder .*1 missing: {name}"):
            load()


def test_many_tensors_are_counted(folder):
    edit(folder / "model.safetensors", lambda weights: [weights.pop(name) for name in sorted(weights)[:12]])
    with pytest.raises(CheckpointMismatchError, match=r"12 missing: .* and 4 more"):
        load_model(folder)


def test_shards_are_checked(make_system, tmp_path):
    make_system("atp_latent").reasoner.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    LatentReasoner.from_pretrained(tmp_path)
    name = "latent_head.trunk.0.weight"
    edit(tmp_path / index["weight_map"][name], lambda weights: weights.pop(name))
    with pytest.raises(CheckpointMismatchError, match=rf"1 missing: {name}"):
        LatentReasoner.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_tied_weights_are_not_missing(family, make_system, tmp_path):
    system = make_system("atp_latent", family=family, backbone={"tie_word_embeddings": True})
    system.save_pretrained(tmp_path)
    _, info = LatentReasoner.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    StepDecoder.from_pretrained(tmp_path / "step_decoder")
