"""What cannot be a backbone is refused by name, with the reason, and before its weights are loaded."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from latentplan.modeling.backbone_check import probe
from latentplan.modeling.backbones import UnsupportedBackboneError, check_config, finish_logits, text_model
from latentplan.training.configs import ModelArguments
from latentplan.training.model_init import load_backbone

REFUSED = {
    "encoder-decoder": ["t5", "bart", "whisper", "musicgen"],
    "recurrent state": [
        "mamba",
        "mamba2",
        "rwkv",
        "jamba",
        "qwen3_next",
        "recurrent_gemma",
        "falcon_h1",
        "zamba2",
    ],
    "no key-value cache": ["xlnet", "openai-gpt"],
    "no inputs_embeds": ["cpmant"],
    "both directions": ["bert", "roberta", "electra"],
    "padding": ["ctrl", "gpt_neo"],
    "masked columns": ["mpt"],
    "one linear map": ["modernbert-decoder"],
    "no causal language model": ["llava", "vit", "mistral3"],
    "not known here": ["deepseek_v32"],
}
CASES = [(name, reason) for reason, names in REFUSED.items() for name in names]


@pytest.mark.parametrize(("model_type", "reason"), CASES)
def test_an_unsupported_architecture_is_refused_by_its_configuration(model_type, reason):
    with pytest.raises(UnsupportedBackboneError, match=rf"\({model_type}\) cannot be a backbone: .*{reason}"):
        check_config(CONFIG_MAPPING[model_type]())


def test_a_model_with_its_own_code_is_refused():
    """Its class would be unknown when what was trained from it is loaded."""

    class OwnConfig(LlamaConfig):
        model_type = "own"

    with pytest.raises(UnsupportedBackboneError, match="its code is not part of transformers"):
        check_config(OwnConfig(auto_map={"AutoConfig": "own.OwnConfig"}))


def test_every_tested_family_passes(each_family, make_backbone):
    check_config(make_backbone(each_family).config)


def test_a_refused_model_is_never_loaded(tmp_path):
    """There are no weights in this folder: the configuration is enough."""
    CONFIG_MAPPING["mamba"]().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedBackboneError, match=r"test_a_refused.* \(mamba\).*choose a decoder-only"):
        load_backbone(ModelArguments(model_name_or_path=str(tmp_path)), ())


def test_a_backbone_from_scratch_is_checked_too(clock_problems):
    with pytest.raises(UnsupportedBackboneError, match="recurrent state"):
        load_backbone(ModelArguments(backbone_config={"model_type": "mamba"}), clock_problems)


def test_the_probe_notices_a_model_that_looks_ahead(make_backbone):
    """transformers drops the causal mask of a configuration that says so."""
    backbone = make_backbone()
    backbone.config.is_causal = False
    with pytest.raises(UnsupportedBackboneError, match="reads in both directions"):
        check_config(backbone.config)
    with pytest.raises(UnsupportedBackboneError, match="so it looks ahead or forgets"):
        probe(backbone)


def test_the_probe_notices_logits_that_it_does_not_know(make_backbone, monkeypatch):
    backbone = make_backbone().train()
    forward = backbone.forward

    def scaled(**inputs):
        output = forward(**inputs)
        output.logits = output.logits * 2
        return output

    monkeypatch.setattr(backbone, "forward", scaled)
    with pytest.raises(UnsupportedBackboneError, match="its logits are more than"):
        probe(backbone)
    assert backbone.training


def test_the_probe_notices_embeddings_of_another_width(make_backbone):
    backbone = make_backbone("opt", word_embed_proj_dim=16)
    with pytest.raises(
        UnsupportedBackboneError, match="embeddings have width 16, its hidden states width 32"
    ):
        probe(backbone)


def test_the_probe_notices_masked_columns_that_count(make_backbone, monkeypatch):
    """Left to themselves, positions count columns."""
    backbone = make_backbone()
    forward = backbone.model.forward
    monkeypatch.setattr(
        backbone.model, "forward", lambda position_ids=None, **rest: forward(position_ids=None, **rest)
    )
    monkeypatch.setattr("latentplan.modeling.decoding_state.takes_positions", lambda model: True)
    with pytest.raises(UnsupportedBackboneError, match="masked columns change its result"):
        probe(backbone)


def test_the_probe_accepts_half_precision(make_backbone):
    for family in ("llama", "gemma2", "gpt2"):
        probe(make_backbone(family).to(torch.bfloat16))


def test_weights_that_are_not_there_are_not_probed(make_backbone):
    with torch.device("meta"):
        backbone = AutoModelForCausalLM.from_config(make_backbone().config)
    probe(backbone)


def test_hyperclovax_multiplies_where_granite_divides():
    logits = torch.tensor([1.0, 2.0])
    for model_type, expected in (("granite", logits / 4), ("hyperclovax", logits * 4)):
        config = CONFIG_MAPPING[model_type](logits_scaling=4.0)
        torch.testing.assert_close(finish_logits(config, logits), expected)


def gemma3_with_eyes(vocab_size: int):
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": vocab_size,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = CONFIG_MAPPING["gemma3"](text_config=text, vision_config=vision)
    return AutoModelForCausalLM.from_config(config).eval()


def test_the_text_model_of_a_multimodal_checkpoint_is_taken_out(clock_tokenizer, tmp_path):
    whole = gemma3_with_eyes(len(clock_tokenizer))
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        expected = whole(ids).logits
        text = text_model(whole)
        torch.testing.assert_close(text(ids).logits, expected)
    assert not any("vision" in name for name, _ in text.named_parameters())
    whole.save_pretrained(tmp_path)
    clock_tokenizer.save_pretrained(tmp_path)
    backbone, _ = load_backbone(ModelArguments(model_name_or_path=str(tmp_path)), ())
    assert backbone.config.model_type == "gemma3_text"
    with torch.no_grad():
        kept = backbone.eval()(ids).logits[..., : expected.shape[-1] - 3]
    torch.testing.assert_close(kept, expected[..., :-3])
    assert text_model(text) is text
