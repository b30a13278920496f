"""LoRA adapters: what is trained, that they start as nothing, are saved with the model, and can be merged."""

import copy

import pytest
import torch

from latentplan.methods.registry import methods
from latentplan.methods.system import LatentSystem, save_finished
from latentplan.modeling.adapters import add_lora, merge_lora
from latentplan.modeling.loading import load_model

SETTINGS = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": None}


@pytest.fixture(params=["llama", "gpt2"])
def adapted(request, make_system):
    """A system with adapters in its backbone, and the same one without; GPT-2 has transposed weights."""
    plain = make_system("atp_latent", family=request.param)
    other = copy.deepcopy(plain)
    other.reasoner.config.lora = dict(SETTINGS)
    add_lora(other.reasoner.backbone, SETTINGS)
    return plain, other


def shake(system):
    """Adapters start as nothing; this makes something of them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in system.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=generator)


def test_only_adapters_heads_and_decoder_are_trained(adapted, make_batch, mixed_problems):
    _, system = adapted
    system(**make_batch(system, mixed_problems))["loss"].backward()
    backbone = dict(system.reasoner.backbone.named_parameters())
    assert {name for name, weight in backbone.items() if weight.grad is not None} == {
        name for name in backbone if "lora_" in name
    }
    assert not any("lm_head" in name for name in backbone if "lora_" in name)
    assert all(weight.grad is not None for weight in system.reasoner.latent_head.parameters())
    assert all(weight.grad is not None for weight in system.step_decoder.parameters())


def test_new_adapters_change_nothing(adapted, make_batch, mixed_problems):
    plain, system = adapted
    batch = make_batch(plain, mixed_problems)
    assert torch.equal(plain(**batch)["loss"], system(**batch)["loss"])


def test_merging_keeps_the_function(adapted, make_batch, mixed_problems):
    plain, system = adapted
    shake(system)
    batch = make_batch(system, mixed_problems)
    expected = system(**batch)["loss"].detach()
    assert not torch.isclose(expected, plain(**batch)["loss"])
    merge_lora(system.reasoner.backbone)
    torch.testing.assert_close(system(**batch)["loss"].detach(), expected, rtol=1e-4, atol=1e-4)
    assert system.state_dict().keys() == plain.state_dict().keys()


def test_a_checkpoint_holds_its_adapters_and_a_finished_model_has_them_merged(
    adapted, make_batch, mixed_problems, clock_tokenizer, tmp_path
):
    _, system = adapted
    shake(system)
    batch = make_batch(system, mixed_problems)
    expected = system(**batch)["loss"].detach()
    system.save_pretrained(tmp_path / "checkpoint", clock_tokenizer)
    save_finished(system, tmp_path / "model", clock_tokenizer)
    again, _ = LatentSystem.from_pretrained(tmp_path / "checkpoint")
    assert again.reasoner.config.lora["r"] == 4
    assert torch.equal(again(**batch)["loss"].detach(), expected)
    merged, _ = LatentSystem.from_pretrained(tmp_path / "model")
    assert merged.reasoner.config.lora is None
    assert not any("lora" in name for name in merged.state_dict())
    torch.testing.assert_close(merged(**batch)["loss"].detach(), expected, rtol=1e-4, atol=1e-4)


def test_adapters_are_float32_in_a_bfloat16_backbone(make_system, clock_tokenizer, tmp_path):
    system = make_system("atp_latent")
    system.reasoner.backbone.to(torch.bfloat16)
    system.reasoner.config.lora = dict(SETTINGS)
    add_lora(system.reasoner.backbone, SETTINGS)
    shake(system)
    system.save_pretrained(tmp_path, clock_tokenizer)
    loaded = load_model(tmp_path).reasoner
    for reasoner in (system.reasoner, loaded):
        dtypes = {name: weight.dtype for name, weight in reasoner.backbone.named_parameters()}
        assert {dtype for name, dtype in dtypes.items() if "lora_" in name} == {torch.float32}
        assert {dtype for name, dtype in dtypes.items() if "lora_" not in name} == {torch.bfloat16}


def test_chosen_modules_get_adapters(make_backbone):
    backbone = make_backbone()
    add_lora(backbone, {**SETTINGS, "target_modules": ["q_proj", "v_proj"]})
    adapted = {name.split(".")[-4] for name, _ in backbone.named_parameters() if "lora_A" in name}
    assert adapted == {"q_proj", "v_proj"}


@pytest.mark.parametrize("method", methods())
def test_every_method_trains_adapters_and_its_own_heads_alone(
    method, make_system, make_batch, mixed_problems
):
    system = make_system(method)
    add_lora(system.reasoner.backbone, SETTINGS)
    system(**make_batch(system, mixed_problems[:2]))["loss"].backward()
    reached = {name for name, weight in system.named_parameters() if weight.grad is not None}
    own = ("lora_", "latent_head", "stop_head", "step_decoder")
    assert any("lora_B" in name for name in reached)
    assert all(any(part in name for part in own) for name in reached)
