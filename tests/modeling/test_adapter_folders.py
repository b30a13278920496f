"""PEFT adapters in a folder: merged into the model beside them as peft computes, or refused by name."""

import json

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from latentplan.modeling.folders.adapter_folders import has_adapter, merge_adapter
from latentplan.modeling.loading import load_model

TIED = {"tie_word_embeddings": True}


def adapter(base, folder, **settings):
    """Saves a random adapter of somebody's, and what `base` computes with it."""
    config = LoraConfig(r=4, task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    adapted = get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "modules_to_save" in name:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
    adapted.base_model.model.config.name_or_path = "someone/base"
    adapted.peft_config["default"].base_model_name_or_path = "someone/base"
    adapted.save_pretrained(folder)
    return adapted(input_ids=IDS).logits.detach()


IDS = torch.arange(12).reshape(2, 6)
KINDS = {
    "plain": {"target_modules": ["q_proj"]},
    "DoRA": {"target_modules": ["q_proj", "up_proj"], "use_dora": True},
    "rank pattern": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}},
    "input": {"target_modules": ["q_proj", "embed_tokens"]},
    "output": {"target_modules": ["q_proj", "lm_head"]},
    "whole layers": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Model has")
def test_a_merged_adapter_computes_what_peft_computes(kind, tied, make_backbone, tmp_path):
    settings = {"tie_word_embeddings": tied}
    expected = adapter(make_backbone(**settings), tmp_path, **KINDS[kind])
    base = make_backbone(**settings).eval()
    assert not torch.allclose(base(input_ids=IDS).logits, expected, atol=1e-2)
    merge_adapter(base, tmp_path)
    torch.testing.assert_close(base(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert all(weight.requires_grad for weight in base.parameters())
    base.save_pretrained(tmp_path / "merged")
    again = type(base).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(again(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
    assert again.config.tie_word_embeddings == (tied and kind in ("plain", "DoRA", "rank pattern"))


@pytest.mark.skipif("ensure_weight_tying" not in LoraConfig.__dataclass_fields__, reason="an older peft")
@pytest.mark.filterwarnings("ignore:Model has")
def test_embeddings_that_were_adapted_alike_stay_tied(make_backbone, tmp_path):
    settings = {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}
    expected = adapter(make_backbone(**TIED), tmp_path, **settings)
    base = make_backbone(**TIED).eval()
    merge_adapter(base, tmp_path)
    torch.testing.assert_close(base(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
    one, other = base.get_input_embeddings().weight, base.get_output_embeddings().weight
    assert (one is other) == base.config.tie_word_embeddings


def test_transposed_weights_are_merged_too(make_backbone, tmp_path):
    expected = adapter(make_backbone("gpt2"), tmp_path, target_modules=["c_attn"], fan_in_fan_out=True)
    base = make_backbone("gpt2").eval()
    merge_adapter(base, tmp_path)
    torch.testing.assert_close(base(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "other", [{"hidden_size": 64}, {"num_hidden_layers": 3}, {"num_hidden_layers": 1}], ids=str
)
def test_an_adapter_of_another_model_is_refused(other, make_backbone, tmp_path):
    adapter(make_backbone(**other), tmp_path, target_modules=["q_proj"])
    with pytest.raises(ValueError, match="does not fit the model next to it: "):
        merge_adapter(make_backbone(), tmp_path)


def test_prompts_are_refused(make_backbone, tmp_path):
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(make_backbone(), prompts).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="of the kind PROMPT_TUNING, which cannot become part of"):
        merge_adapter(make_backbone(), tmp_path)


def test_an_adapter_alone_is_named_with_its_base(make_backbone, tmp_path):
    base = make_backbone()
    adapter(base, tmp_path, target_modules=["q_proj"])
    message = r"is a PEFT adapter \(LORA\) of the model someone/base, not a whole model: merge it"
    with pytest.raises(ValueError, match=message):
        has_adapter(str(tmp_path))
    base.config.save_pretrained(tmp_path)  # a configuration makes no whole model
    with pytest.raises(ValueError, match=message):
        has_adapter(str(tmp_path))
    make_backbone().save_pretrained(tmp_path)
    assert has_adapter(str(tmp_path))
    (tmp_path / "adapter_config.json").unlink()
    assert not has_adapter(str(tmp_path))


@pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"peft_type": "LORA"})])
def test_a_damaged_adapter_is_named(text, tmp_path):
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"a PEFT adapter whose .*adapter_config.json cannot be read"):
        has_adapter(str(tmp_path))


def test_an_adapter_beside_a_latentplan_model_is_refused(
    make_system, make_backbone, clock_tokenizer, tmp_path
):
    """transformers would put it in, and nothing would say so."""
    make_system("cot").save_pretrained(tmp_path, clock_tokenizer)
    adapter(make_backbone(), tmp_path, target_modules=["q_proj"])
    with pytest.raises(ValueError, match=r"\(LORA\) of the model someone/base next to a latentplan model"):
        load_model(tmp_path)
