"""An instruct backbone, from its folder through training to answers, asked in its chat template."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from latentplan.encoding.tokenizers import problem_texts, train_word_level
from latentplan.modeling.loading import load_model
from latentplan.modeling.sampling import Sampling
from latentplan.rollout.engine import generate
from latentplan.rollout.solve import question_batch, solve
from latentplan.training.configs import ModelArguments

TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|head|>' + message['role'] + '\n' + message['content'] + '<|eot|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|head|>model\n' -}}{%- endif -%}"
)


@pytest.fixture(scope="module")
def instruct_model(clock_problems, tmp_path_factory):
    """A random Llama whose tokenizer ends turns with <|eot|>, which is not its eos."""
    folder = tmp_path_factory.mktemp("instruct")
    tokenizer = train_word_level([*problem_texts(clock_problems), "user model system"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|head|>", "<|eot|>"]})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chat_run(instruct_model, run_sft, tmp_path_factory):
    model = ModelArguments(model_name_or_path=str(instruct_model), chat_template=True)
    folder = tmp_path_factory.mktemp("chat") / "sft"
    return run_sft(folder, model, curriculum_steps=[1], save_strategy="no")


def test_a_model_trained_in_a_chat_template_is_asked_in_it(chat_run, clock_problems):
    loaded = load_model(chat_run.path)
    tokenizer, config = loaded.tokenizer, loaded.reasoner.config
    assert config.chat_template
    ends = tokenizer.convert_tokens_to_ids(["<|eot|>", "<|eos|>"])
    assert config.eos_token_id == ends
    assert loaded.step_decoder.config.eos_token_id == ends[0]
    ids, mask = question_batch(loaded, [clock_problems[0].question])
    text = tokenizer.decode(ids[0])
    assert text.startswith("<|head|>")
    assert text.count("<|eot|>") == 1
    assert text.endswith("<|start-latent|>")
    assert bool(mask.all())
    (solution,) = solve(loaded, [clock_problems[0].question], Sampling.greedy(8))[0]
    assert "<|" not in solution.completion


def test_either_end_token_ends_an_answer(chat_run, clock_problems):
    loaded = load_model(chat_run.path)
    model, ends = loaded.reasoner, loaded.reasoner.config.eos_token_id
    ids, mask = question_batch(loaded, [each.question for each in clock_problems[:4]])
    rolled = generate(
        model, ids, mask, torch.arange(4), seed=0, sampling=Sampling(max_new_tokens=60), draws=8
    )
    last = set()
    for tokens, used, finished in zip(
        rolled.answer_ids.tolist(), rolled.answer_mask.tolist(), rolled.finished.tolist(), strict=True
    ):
        written = tokens[: sum(used)]
        assert finished == (written[-1] in ends)
        assert not set(written[:-1]) & set(ends)
        last.add(written[-1])
    assert set(ends) <= last


def test_later_runs_keep_the_chat_template(chat_run, run_sft, run_grpo, tmp_path, clock_problems):
    start = str(chat_run.path)
    later = run_sft(
        tmp_path / "sft",
        ModelArguments(model_name_or_path=start),
        curriculum_steps=[1],
        save_strategy="no",
    )
    reinforced = run_grpo(tmp_path / "rl", start, max_steps=1, save_strategy="no")
    expected = load_model(start).processor.question(clock_problems[0].question)
    for run in (later, reinforced):
        assert load_model(run.path).processor.question(clock_problems[0].question) == expected


def test_a_system_prompt_without_a_chat_template_is_an_error(instruct_model, run_sft, tmp_path):
    model = ModelArguments(model_name_or_path=str(instruct_model), system_prompt="Be brief.")
    with pytest.raises(ValueError, match="set chat_template to true"):
        run_sft(tmp_path, model)
