"""Unusual folders that runs start from: handled as they are meant, or refused by name before training."""

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from latentplan.cli.app import app
from latentplan.encoding.tokenizers import SPECIAL_TOKENS, add_special_tokens, problem_texts, train_word_level
from latentplan.modeling.loading import load_model
from latentplan.problems.training_set import DataArguments
from latentplan.training.configs import ModelArguments
from latentplan.training.model_init import initialise_system
from latentplan.training.run_training import train_sft

IDS = torch.arange(12).reshape(2, 6)


@pytest.fixture(scope="session")
def words(clock_problems):
    """A tokenizer without the latent tokens."""
    return train_word_level(problem_texts(clock_problems))


@pytest.fixture
def save_base(words, tmp_path):
    def save(name="base", tokenizer=None, rows=None, **settings):
        torch.manual_seed(0)
        tokenizer = tokenizer or words
        config = LlamaConfig(
            vocab_size=rows or max(tokenizer.get_vocab().values()) + 1,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            initializer_range=0.1,
            pad_token_id=None,
            **settings,
        )
        backbone = LlamaForCausalLM(config)
        backbone.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def add_adapter(tmp_path):
    def add(base, folder, rows=None, **settings):
        """A random adapter of `base` in `folder`; the logits of the two together."""
        model = AutoModelForCausalLM.from_pretrained(base)
        if rows is not None:
            model.resize_token_embeddings(rows, mean_resizing=False)
        config = LoraConfig(r=4, init_lora_weights=False, task_type="CAUSAL_LM", **settings)
        adapted = get_peft_model(model, config).eval()
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink()
        return adapted(input_ids=IDS).logits.detach()

    return add


@pytest.fixture
def train(sft_config, tmp_path):
    """One step that changes nothing; the finished model."""

    def run(start, name="run", **settings):
        model = ModelArguments(str(start), **settings)
        data = DataArguments(dataset_name=["minigsm"], dataset_config="clock", dataset_size=20)
        short = {"method": "cot", "curriculum_steps": [1], "learning_rate": 1e-12}
        return load_model(train_sft(model, data, sft_config(tmp_path / name, **short)).path)

    return run


def start_from(folder, tmp_path):
    """What the command line says that refuses a folder."""
    flags = {"model_name_or_path": folder, "output_dir": tmp_path / "run", "method": "cot", "use_cpu": "true"}
    flags |= {"dataset_config": "clock", "dataset_size": 20, "curriculum_steps": 1, "report_to": "none"}
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    done = CliRunner().invoke(app, ["sft", *arguments])
    assert done.exit_code == 2
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    return done.output


ADAPTERS = {"none": {}, "other": {"use_peft": True, "lora_r": 2}}
ADAPTERS["alike"] = {"use_peft": True, "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj"]}


@pytest.mark.parametrize("adapters", ADAPTERS)
def test_an_adapter_beside_its_base_is_merged(adapters, save_base, add_adapter, train, caplog):
    folder = save_base()
    expected = add_adapter(folder, folder, target_modules=["q_proj"])
    model = train(folder, **ADAPTERS[adapters])
    found = model.reasoner(IDS).logits[..., : expected.shape[-1]]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert "holds an adapter next to the model: it has been merged" in caplog.text


def test_an_adapter_that_was_trained_with_more_tokens_is_merged(save_base, add_adapter, train, words):
    folder = save_base(tie_word_embeddings=True)
    more = AutoTokenizer.from_pretrained(folder)
    more.add_tokens(["<call>", "</call>"])
    settings = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
    expected = add_adapter(folder, folder, rows=len(more), **settings)
    more.save_pretrained(folder)
    model = train(folder)
    found = model.reasoner(IDS).logits[..., : len(more)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_alone_is_refused_with_its_base(save_base, add_adapter, tmp_path):
    base = save_base()
    add_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    said = start_from(tmp_path / "adapter", tmp_path)
    assert f"{tmp_path / 'adapter'} is a PEFT adapter (LORA) of the model {base}, not a whole model" in said


def test_an_adapter_of_another_model_is_refused(save_base, add_adapter, tmp_path):
    add_adapter(save_base("other", rows=1000), tmp_path / "base", target_modules=["lm_head"])
    said = start_from(save_base(), tmp_path)
    assert "the adapter in" in said
    assert "does not fit the model next to it" in said


@pytest.mark.parametrize("targets", [["embed_tokens", "q_proj"], ["q_proj", "lm_head"]], ids=str)
def test_a_run_on_tied_embeddings_is_gone_on_from_as_it_ended(
    targets, save_base, sft_config, tmp_path, data_arguments
):
    """Also where it is trained with adapters again; but latent tokens start anew in a model of text."""
    base = save_base(tie_word_embeddings=True)
    settings = {"method": "cot", "per_device_train_batch_size": 40}
    lora = {"use_peft": True, "lora_r": 4, "lora_target_modules": targets}

    def losses(start, name, steps, rate, **lora):
        config = sft_config(tmp_path / name, **settings, curriculum_steps=[steps], learning_rate=rate)
        run = train_sft(ModelArguments(str(start), **lora), data_arguments, config)
        return run.path, load_model(run.path).reasoner(IDS).logits[..., :60]

    first, trained = losses(base, "first", 4, 0.05, **lora)
    _, same = losses(first, "second", 1, 1e-12)
    _, again = losses(first, "third", 1, 1e-12, **lora)
    assert (trained - LlamaForCausalLM.from_pretrained(base)(IDS).logits[..., :60]).abs().max() > 0.1
    torch.testing.assert_close(same, trained, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(again, trained, rtol=1e-5, atol=1e-5)


def test_holes_in_the_vocabulary_are_no_tokens(words, save_base, train):
    """Every id has a row, and no two tokens have one id, wherever the latent tokens are put."""
    last = max(words.get_vocab().values())
    ends = {"eos_token": words.eos_token, "unk_token": words.unk_token, "pad_token": words.pad_token}
    holed = type(words)(tokenizer_object=with_hole(words.backend_tokenizer, last + 20), **ends)
    assert len(holed) < max(holed.get_vocab().values())
    model = train(save_base(tokenizer=holed))
    vocabulary = model.tokenizer.get_vocab()
    assert vocabulary["<extra>"] == last + 20
    assert len(set(vocabulary.values())) == len(vocabulary) == len(holed) + len(SPECIAL_TOKENS)
    assert model.reasoner.get_input_embeddings().weight.shape[0] > max(vocabulary.values())


def with_hole(tokenizer, index):
    content = json.loads(tokenizer.to_str())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"].append({"id": index, "content": "<extra>", **flags})
    content["model"]["vocab"]["<extra>"] = index
    return Tokenizer.from_str(json.dumps(content))


@pytest.mark.parametrize("padding", [False, True])
def test_a_tokenizer_without_an_end_token_is_refused(padding, words, save_base, tmp_path):
    endless = type(words)(tokenizer_object=words.backend_tokenizer, unk_token=words.unk_token)
    if padding:
        endless.pad_token = words.pad_token
    said = start_from(save_base(tokenizer=endless), tmp_path)
    assert f"the tokenizer of {tmp_path / 'base'} has no end token (eos_token)" in said


def test_a_tokenizer_with_two_tokens_of_one_id_is_refused(words, monkeypatch):
    tokenizer = type(words)(tokenizer_object=words.backend_tokenizer, eos_token=words.eos_token)
    vocabulary = {**tokenizer.get_vocab(), **{token: 5 + at for at, token in enumerate(SPECIAL_TOKENS)}}
    monkeypatch.setattr(tokenizer, "get_vocab", lambda: vocabulary)
    with pytest.raises(ValueError, match="several tokens of one id"):
        add_special_tokens(tokenizer)


def test_an_adapter_of_the_step_decoders_folder_is_merged_too(save_base, add_adapter, sft_config, tmp_path):
    decoder = save_base("decoder")
    expected = add_adapter(decoder, decoder, target_modules=["q_proj"])
    model = replace(ModelArguments(str(save_base())), step_decoder_name_or_path=str(decoder))
    system, _ = initialise_system(model, sft_config(tmp_path / "run"), [])
    found = system.step_decoder.backbone(IDS).logits[..., : expected.shape[-1]]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
