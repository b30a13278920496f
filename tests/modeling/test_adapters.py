"""LoRA adapters: what is trained, that they start as nothing, are saved with the model, and can be merged."""

import copy

import pytest
import torch

from latentplan.methods.base import methods
from latentplan.modeling.loading import load_model
from latentplan.modeling.lora import add_lora, merge_lora
from latentplan.training.trainable_model import LatentModelForTraining, save_finished

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
    again, _ = LatentModelForTraining.from_pretrained(tmp_path / "checkpoint")
    assert again.reasoner.config.lora["r"] == 4
    assert torch.equal(again(**batch)["loss"].detach(), expected)
    merged, _ = LatentModelForTraining.from_pretrained(tmp_path / "model")
    assert merged.reasoner.config.lora is None
    assert not any("lora" in name for name in merged.state_dict())
    torch.testing.assert_close(merged(**batch)["loss"].detach(), expected, rtol=1e-4, atol=1e-4)


def test_adapters_are_float32_in_a_bfloat16_backbone(make_system, clock_tokenizer, tmp_path):
    system = make_system("atp_latent")
    system.reasoner.backbone.to(torch.bfloat16)
    settings = {**SETTINGS, "target_modules": ["q_proj", "embed_tokens"], "use_dora": True}
    system.reasoner.config.lora = dict(settings)
    add_lora(system.reasoner.backbone, settings)
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


EMBEDDINGS = {
    "llama": ("embed_tokens", "lm_head", "q_proj"),
    "qwen2": ("embed_tokens", "lm_head", "q_proj"),
    "gemma": ("embed_tokens", "lm_head", "q_proj"),
    "gpt2": ("wte", "lm_head", "c_attn"),
}
TIED = {"tie_word_embeddings": True}


def tables(model):
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


def adapt(system, settings):
    """Adapters in the reasoner and in the step decoder, which change what both compute."""
    for part in (system.reasoner, system.step_decoder):
        part.config.lora = dict(settings)
        add_lora(part.backbone, settings)
    shake_all(system)


def shake_all(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if any(part in name for part in ("lora_", "modules_to_save")):
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)


@pytest.mark.parametrize("family", EMBEDDINGS)
@pytest.mark.parametrize("adapted_layers", [(0, 2), (1,), (0, 1)], ids=["input", "output", "both"])
def test_adapters_on_tied_embeddings_are_saved_as_they_are_trained(
    family, adapted_layers, make_system, make_batch, mixed_problems, clock_tokenizer, tmp_path, caplog
):
    """Also the rows of the latent tokens, which the batch reads and the loss is computed from."""
    system = make_system("atp_latent", family=family, backbone=TIED)
    start = tables(system.reasoner)[0].detach().clone()
    targets = [EMBEDDINGS[family][index] for index in adapted_layers]
    adapt(system, {**SETTINGS, "target_modules": targets})
    assert "the finished model's embeddings are not tied" in caplog.text
    batch = make_batch(system, mixed_problems)
    expected = system(**batch)["loss"].detach()
    system.save_pretrained(tmp_path / "checkpoint", clock_tokenizer)
    save_finished(system, tmp_path / "model", clock_tokenizer)
    checkpoint, _ = LatentModelForTraining.from_pretrained(tmp_path / "checkpoint")
    assert torch.equal(checkpoint(**batch)["loss"].detach(), expected)
    merged, loaded = LatentModelForTraining.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(merged(**batch)["loss"].detach(), expected, rtol=1e-5, atol=1e-5)
    for index, table in enumerate(tables(loaded.reasoner)):  # an adapter changes the layer that it is on
        assert torch.equal(table, start) == (index not in adapted_layers)


def test_merging_leaves_a_layer_alone_that_has_become_tied_again(make_backbone):
    backbone = make_backbone(**TIED)
    start = tables(backbone)[0].detach().clone()
    add_lora(backbone, {**SETTINGS, "target_modules": ["embed_tokens"]})
    backbone.get_output_embeddings().weight = tables(backbone)[0]
    shake_all(backbone)
    merge_lora(backbone)
    assert torch.equal(tables(backbone)[1], start)
    assert not torch.equal(tables(backbone)[0], start)


def test_adapters_elsewhere_leave_tied_embeddings_tied(make_system, clock_tokenizer, tmp_path, caplog):
    system = make_system("cot", backbone=TIED)
    system.reasoner.config.lora = dict(SETTINGS)
    add_lora(system.reasoner.backbone, SETTINGS)
    save_finished(system, tmp_path, clock_tokenizer)
    one, other = tables(load_model(tmp_path).reasoner)
    assert one is other
    assert not caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True, "target_modules": ["q_proj", "down_proj", "embed_tokens"]},
        {"use_rslora": True, "target_modules": ["v_proj"]},
        {
            "rank_pattern": {"q_proj": 2},
            "alpha_pattern": {"q_proj": 16},
            "target_modules": ["q_proj", "v_proj"],
        },
        {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]},
        {"modules_to_save": ["embed_tokens"], "target_modules": ["q_proj"]},
    ],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=str)
def test_every_kind_of_adapter_is_saved_as_it_is_trained(
    settings, dtype, tolerance, make_system, clock_tokenizer, tmp_path
):
    system = make_system("cot", backbone=TIED)
    system.reasoner.backbone.to(dtype)
    system.reasoner.config.lora = {**SETTINGS, **settings}
    add_lora(system.reasoner.backbone, system.reasoner.config.lora)
    ids = torch.arange(40).reshape(4, 10)
    before = system.reasoner(ids).logits
    shake_all(system)
    trained = system.reasoner(ids).logits
    save_finished(system, tmp_path, clock_tokenizer)
    saved = load_model(tmp_path).reasoner(ids).logits
    assert distance(before, trained) > 0.1
    assert distance(saved, trained) < tolerance


def distance(one, other):
    """Mean difference in parts of the mean size."""
    return float((one - other).float().abs().mean() / other.float().abs().mean())


def test_a_layer_that_is_not_there_is_named(make_backbone):
    with pytest.raises(ValueError, match=r"no module query_proj; its linear maps are down_proj, .*q_proj"):
        add_lora(make_backbone(), {**SETTINGS, "target_modules": ["q_proj", "query_proj"]})
