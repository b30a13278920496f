"""What is saved is compared with what is trained: a fault on the way is found before the first step.

Faults of every kind: adapters that change another layer when they are merged, that are lost, a weight that
comes back as another, a save that fails.
"""

import errno
import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from latentplan.modeling import lora as adapters
from latentplan.modeling.saving import SavedModel
from latentplan.training import saved_model
from latentplan.training import trainable_model as systems
from latentplan.training.run_training import train_sft
from latentplan.training.saved_model import TOLERANCES, SavedModelError, outputs, rehearse

TARGETS = ["q_proj", "embed_tokens"]
LORA = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": TARGETS}
SHORT = {"curriculum_steps": [1], "curriculum_stages": [2]}


def distance(one, other):
    return max(float((one[name] - other[name]).abs().mean() / one[name].abs().mean()) for name in one)


def save_without_adapters(part, folder):
    for name, layer in list(adapters._adapted(part.backbone)):
        parent, _, child = name.rpartition(".")
        setattr(part.backbone.get_submodule(parent), child, layer.get_base_layer())
    part.config.lora = None
    part.save_pretrained(folder)


def merge_reasoner_alone(part, folder, merge=adapters.merge_saved):
    (merge if hasattr(part, "latent_head") else save_without_adapters)(part, folder)


def merge_twice(layer, merged=adapters._merged):
    layer.scaling = {name: 2 * value for name, value in layer.scaling.items()}
    return merged(layer)


def save_other_weights(self, folder, *args, save=SavedModel.save_pretrained, part="", **options):
    weights = {name: value.clone() for name, value in self.state_dict().items()}
    for name in [name for name in weights if part in name][:1]:
        weights[name] = weights[name].flip(0)
    return save(self, folder, **{**options, "state_dict": weights})


FAULTS = {
    "merged into a shared weight": (adapters, "untie", lambda backbone: None),
    "lost when merged": (systems, "merge_saved", save_without_adapters),
    "lost in the step decoder": (systems, "merge_saved", merge_reasoner_alone),
    "merged at another scale": (adapters, "_merged", merge_twice),
    "another embedding": (SavedModel, "save_pretrained", partial(save_other_weights, part="embed_tokens")),
    "another layer": (SavedModel, "save_pretrained", partial(save_other_weights, part="layers.1.mlp")),
    "another latent head": (
        SavedModel,
        "save_pretrained",
        partial(save_other_weights, part="trunk.2.weight"),
    ),
    "another stop head": (SavedModel, "save_pretrained", partial(save_other_weights, part="layers.2.weight")),
}


@pytest.fixture
def make_adapted(make_system):
    """A system of every part, with tied embeddings that get adapters."""

    def build(dtype):
        system = make_system("atp_latent", backbone={"tie_word_embeddings": True})
        for part in (system.reasoner, system.step_decoder):
            part.backbone.to(dtype)
            part.config.lora = dict(LORA)
            adapters.add_lora(part.backbone, LORA)
        return system.eval()

    return build


def go(system, tokenizer, folder):
    dtype = system.reasoner.backbone.dtype
    expected = outputs(system.reasoner, system.step_decoder)
    rehearse(folder, system, tokenizer, None, expected, TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_rehearsal_changes_nothing(dtype, make_adapted, clock_tokenizer, tmp_path):
    system = make_adapted(dtype)
    weights = {name: value.clone() for name, value in system.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    go(system, clock_tokenizer, tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in system.state_dict().items())
    assert system.has_adapters


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_on_the_way_is_found(fault, dtype, make_adapted, clock_tokenizer, tmp_path, monkeypatch):
    place, name, instead = FAULTS[fault]
    if isinstance(instead, partial):
        monkeypatch.setattr(place, name, lambda self, *args, **options: instead(self, *args, **options))
    else:
        monkeypatch.setattr(place, name, instead)
    with pytest.raises(SavedModelError, match=r"what is saved is not what is trained: the .* differ by"):
        go(make_adapted(dtype), clock_tokenizer, tmp_path)


def test_outputs_reach_every_trained_weight(make_system):
    """A weight that nothing is computed from could be lost without a trace."""
    system = make_system("atp_latent").eval()
    for name, weight in system.named_parameters():
        before = outputs(system.reasoner, system.step_decoder)
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.add_(torch.linspace(-1, 1, weight.numel()).reshape(weight.shape))
            assert distance(before, outputs(system.reasoner, system.step_decoder)) > 1e-3, name
            weight.copy_(kept)


@pytest.fixture
def lora(scratch_model):
    backbone = {**scratch_model.backbone_config, "tie_word_embeddings": True}
    return replace(scratch_model, backbone_config=backbone, use_peft=True, lora_target_modules=TARGETS)


@pytest.fixture
def train(lora, data_arguments, sft_config, tmp_path):
    def run(name="run", **overrides):
        return train_sft(lora, data_arguments, sft_config(tmp_path / name, **{**SHORT, **overrides}))

    return run


def hidden_files(folder):
    return {path.name for path in folder.iterdir() if path.name.startswith(".")} - {".lock"}


def test_a_run_ends_with_the_same_weights_without_the_checks(train, assert_same_weights):
    checked, unchecked = train("checked"), train("unchecked", check_saving=False)
    assert_same_weights(checked.path, unchecked.path)
    assert not hidden_files(checked.path)


@pytest.mark.parametrize(
    ("place", "name", "instead", "message"),
    [
        (adapters, "untie", lambda backbone: None, "what is saved is not what is trained"),
        (saved_model, "save_merged", None, "No space left on device"),
    ],
    ids=["fault", "full disk"],
)
def test_nothing_is_trained_where_nothing_could_be_saved(
    place, name, instead, message, train, tmp_path, monkeypatch
):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, name, instead or full)
    with pytest.raises(SavedModelError, match=f"nothing was trained, because .*{message}"):
        train()
    assert not hidden_files(tmp_path / "run")
    assert not list((tmp_path / "run").glob("checkpoint-*"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_checkpoints_stay_where_the_finished_model_is_another(train, tmp_path, monkeypatch, weights_of):
    """The same command goes on from them once the reason is gone, without a rehearsal."""
    with monkeypatch.context() as patch:
        patch.setattr(saved_model, "rehearse", lambda *args: None)
        patch.setattr(systems, "merge_saved", save_without_adapters)
        with pytest.raises(SavedModelError, match="checkpoints of the run stay"):
            train(learning_rate=0.1, curriculum_steps=[4])
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    assert not (folder / "model").exists()
    assert json.loads((folder / "run.json").read_text())["status"] == "running"
    monkeypatch.setattr(saved_model, "rehearse", None)
    assert train(learning_rate=0.1, curriculum_steps=[4]).finished
    assert not list(folder.glob("checkpoint-*"))
