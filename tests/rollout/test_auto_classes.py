"""A saved model in plain transformers: auto classes, `generate`, and a tokenizer that knows the layout."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    pipeline,
)

from latentplan.modeling.loading import load_model
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.sampling import Sampling
from latentplan.modeling.saving import CODE_FILE
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.rollout.causal_lm import LatentReasonerForCausalLM
from latentplan.rollout.solve import solve


@pytest.fixture(scope="module")
def folder(make_system, clock_tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("auto")
    make_system("atp_latent", seed=1).save_pretrained(path, clock_tokenizer)
    return path


@pytest.fixture(scope="module")
def questions(mixed_problems):
    return [problem.question for problem in mixed_problems]


def as_messages(questions):
    return [[{"role": "user", "content": question}] for question in questions]


def ask(folder, questions):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer, tokenizer.apply_chat_template(
        as_messages(questions),
        add_generation_prompt=True,
        padding=True,
        return_tensors="pt",
        return_dict=True,
    )


def test_the_auto_classes_give_our_classes_without_a_flag(folder):
    assert type(AutoModel.from_pretrained(folder)) is LatentReasoner
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is LatentReasonerForCausalLM
    assert type(AutoModel.from_pretrained(folder / "step_decoder")) is StepDecoder
    assert AutoConfig.from_pretrained(folder).num_slots == 6


def test_generate_reasons_as_solve_does(folder, questions):
    tokenizer, asked = ask(folder, questions)
    model = AutoModelForCausalLM.from_pretrained(folder)
    written = model.generate(**asked, max_new_tokens=8)
    width = asked["input_ids"].shape[1]
    assert torch.equal(written[:, :width], asked["input_ids"])
    texts = tokenizer.batch_decode(written[:, width:], skip_special_tokens=True)
    expected = solve(load_model(folder), questions, Sampling.greedy(8))
    assert [text.strip() for text in texts] == [one.completion for (one,) in expected]
    # A given frame is not doubled, and the mask may be left out.
    start = torch.full_like(asked["input_ids"][:, :1], model.config.start_latent_token_id)
    framed = torch.cat([asked["input_ids"], start], dim=1)
    assert torch.equal(model.generate(framed, max_new_tokens=8)[:, width + 1 :], written[:, width:])


def test_generate_samples_from_torch_s_generator(folder, questions):
    _, asked = ask(folder, questions[:2])
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = GenerationConfig(do_sample=True, num_return_sequences=3, max_new_tokens=6)
    torch.manual_seed(5)
    one = model.generate(**asked, generation_config=config)
    other = model.generate(**asked, generation_config=config)
    torch.manual_seed(5)
    again = model.generate(**asked, generation_config=config)
    assert one.shape[0] == 6
    assert torch.equal(one, again)
    assert one.shape != other.shape or not torch.equal(one, other)


@pytest.mark.parametrize("setting", [{"num_beams": 4}, {"top_p": 0.9}, {"penalty_alpha": 0.6}])
def test_generate_refuses_what_it_does_not_do(setting, folder, questions):
    _, asked = ask(folder, questions[:1])
    with pytest.raises(ValueError, match=f"generate does not take {next(iter(setting))}="):
        AutoModelForCausalLM.from_pretrained(folder).generate(**asked, **setting)


def test_generate_wants_padding_on_the_left(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(ValueError, match="pad questions on the left"):
        model.generate(torch.tensor([[5, 6, 7]]), torch.tensor([[1, 1, 0]]))


def test_a_model_without_latents_generates_too(make_system, clock_tokenizer, questions, tmp_path):
    make_system("cot").save_pretrained(tmp_path, clock_tokenizer)
    _, asked = ask(tmp_path, questions[:2])
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.generate(**asked, max_new_tokens=3).shape[1] <= asked["input_ids"].shape[1] + 3


def test_the_pipeline_of_transformers_answers(folder, questions):
    tokenizer, asked = ask(folder, questions[:1])
    model = AutoModelForCausalLM.from_pretrained(folder)
    answer = pipeline("text-generation", model=model, tokenizer=tokenizer)
    (turn,) = answer(as_messages(questions[:1]), max_new_tokens=5, do_sample=False)[0]
    text = turn["generated_text"][-1]["content"]
    written = model.generate(**asked, max_new_tokens=5)[0, asked["input_ids"].shape[1] :]
    assert text.split() == tokenizer.decode(written, skip_special_tokens=True).split()


def test_what_was_loaded_through_the_flag_saves_as_before(folder, tmp_path):
    """transformers would copy the source file of a class that it took for remote code."""
    LatentReasonerForCausalLM.register_for_auto_class("AutoModelForCausalLM")
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    model.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.glob("*.py")] == [CODE_FILE]
    assert (
        AutoModelForCausalLM.from_pretrained(tmp_path).config.auto_map["AutoModel"].endswith("LatentReasoner")
    )


def test_plain_transformers_loads_the_folder(folder, questions, tmp_path):
    """In a process that has not imported latentplan; and without the flag it says what is missing."""
    program = textwrap.dedent(
        f"""
        import sys
        from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer
        try:
            AutoModelForCausalLM.from_pretrained({str(folder)!r}, trust_remote_code=False)
        except ValueError as error:
            assert "trust_remote_code=True" in str(error)
        assert "latentplan" not in sys.modules
        trusted = {{"trust_remote_code": True}}
        tokenizer = AutoTokenizer.from_pretrained({str(folder)!r}, **trusted)
        assert AutoConfig.from_pretrained({str(folder)!r}, **trusted).num_slots == 6
        model = AutoModelForCausalLM.from_pretrained({str(folder)!r}, **trusted)
        assert type(AutoModel.from_pretrained({str(folder)!r}, **trusted)).__name__ == "LatentReasoner"
        asked = tokenizer.apply_chat_template(
            [{{"role": "user", "content": {questions[0]!r}}}],
            add_generation_prompt=True, return_tensors="pt", return_dict=True,
        )
        print(model.generate(**asked, max_new_tokens=8)[0].tolist())
        """
    )
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    _, asked = ask(folder, questions[:1])
    expected = AutoModelForCausalLM.from_pretrained(folder).generate(**asked, max_new_tokens=8)[0].tolist()
    assert done.stdout.strip().splitlines()[-1] == str(expected)


def test_the_code_file_says_to_install_latentplan(folder):
    program = f"""
import sys
sys.modules["latentplan"] = None
exec(open({str(folder / CODE_FILE)!r}).read())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "pip install latentplan" in done.stderr
