"""Chat templates: small ones of our own writing with the traits of the published ones."""

import pytest
from transformers import AutoTokenizer

from latentplan.encoding.chat_template import PLAIN_TEMPLATE, ChatTemplate, saved_template
from latentplan.encoding.processor import ProblemProcessor
from latentplan.encoding.tokenizers import add_special_tokens, train_byte_level_bpe
from latentplan.problems.problem import Problem

# As Llama 3: bos in the template, today's date in the system message, <|eot|> after every turn.
DATED = (
    "{{- bos_token }}"
    "{%- if not date_string is defined %}"
    "{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
    "{%- else %}{%- set date_string = '1 Jan 2000' %}{%- endif %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set said = messages[0]['content'] %}{%- set messages = messages[1:] %}"
    "{%- else %}{%- set said = '' %}{%- endif %}"
    "{{- '<|head|>system\n' + date_string + ' ' + said + '<|eot|>' }}"
    "{%- for message in messages %}"
    "{{- '<|head|>' + message['role'] + '\n' + message['content'] | trim + '<|eot|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|head|>assistant\n' }}{%- endif %}"
)
# As Gemma: no system message; the turn ends with a token that is not the tokenizer's eos, and a line break.
NO_SYSTEM = (
    "{%- if messages[0]['role'] == 'system' -%}{{- raise_exception('no system role') -}}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{- '<|head|>' + message['role'] + '\n' + message['content'] + '<|eot|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|head|>model\n' -}}{%- endif -%}"
)
# As Mistral: brackets, and the eos itself, after a space.
BRACKETS = (
    "{{- bos_token -}}{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{- '[INST] ' + message['content'] + ' [/INST]' -}}"
    "{%- else -%}{{- ' ' + message['content'] + ' ' + eos_token -}}{%- endif -%}{%- endfor -%}"
)
NO_END = "{%- for message in messages -%}{{- message['content'] + '\n' -}}{%- endfor -%}"
PROBLEM = Problem(" Ann has 3 pens and buys 4. ", ("<<3+4=7>>",), "7")


@pytest.fixture
def tokenizer():
    made = train_byte_level_bpe(["Ann has 3 pens and buys 4. assistant user model ### << >>"] * 3, 400)
    made.add_special_tokens({"bos_token": "<|bos|>", "additional_special_tokens": ["<|head|>", "<|eot|>"]})
    add_special_tokens(made)
    return made


def with_template(tokenizer, template):
    tokenizer.chat_template = template
    return tokenizer


def test_our_tokens_join_those_that_the_tokenizer_has(tokenizer):
    assert {"<|head|>", "<|eot|>", "<|start-latent|>"} <= set(tokenizer.all_special_tokens)


def test_a_question_is_what_the_template_writes_with_one_bos(tokenizer):
    with_template(tokenizer, DATED)
    processor = ProblemProcessor(tokenizer, chat=ChatTemplate(tokenizer, "Be brief."))
    expected = (
        "<|bos|><|head|>system\n26 Jul 2024 Be brief.<|eot|>"
        "<|head|>user\nAnn has 3 pens and buys 4.<|eot|><|head|>assistant\n"
    )
    ids = processor.question(PROBLEM.question)
    assert tokenizer.decode(ids) == expected
    assert ids.count(tokenizer.bos_token_id) == 1
    encoded = processor(PROBLEM)
    assert encoded.question == ids
    assert tokenizer.decode(encoded.answer) == "### 7<|eot|>"
    row = processor.row(encoded, stage=1, max_latent_steps=2, latents_per_step=2, fixed=True)
    assert row.question == [*ids, processor.start_latent]
    assert tokenizer.decode(row.decoded_steps[0]) == "<<3+4=7>><|eot|>"


@pytest.mark.parametrize(
    ("template", "end"),
    [(DATED, "<|eot|>"), (NO_SYSTEM, "<|eot|>"), (BRACKETS, "<|eos|>"), (NO_END, "<|eos|>")],
    ids=["dated", "no_system", "brackets", "no_end"],
)
def test_an_answer_ends_as_the_template_ends_a_turn(template, end, tokenizer):
    chat = ChatTemplate(with_template(tokenizer, template))
    assert tokenizer.convert_ids_to_tokens(chat.end_of_turn) == end


def test_the_plain_layout_is_as_before(tokenizer):
    """Also for a tokenizer that has a template."""
    processor = ProblemProcessor(with_template(tokenizer, DATED))
    assert tokenizer.decode(processor.question(PROBLEM.question)) == "<|bos|>Ann has 3 pens and buys 4.\n"
    assert processor(PROBLEM).answer[-1] == tokenizer.eos_token_id


def test_a_tokenizer_without_a_template_is_an_error(tokenizer):
    for template in (None, PLAIN_TEMPLATE):
        with pytest.raises(ValueError, match="has no chat template: choose an instruct model"):
            ChatTemplate(with_template(tokenizer, template))


def test_a_template_that_refuses_a_system_prompt_says_so(tokenizer):
    with pytest.raises(ValueError, match=r"no system role \(set no system_prompt"):
        ChatTemplate(with_template(tokenizer, NO_SYSTEM), "Be brief.")


@pytest.mark.parametrize("system_prompt", [None, "It's \\ two\nlines"], ids=["without", "with"])
@pytest.mark.parametrize("template", [DATED, BRACKETS], ids=["dated", "brackets"])
def test_the_saved_tokenizer_writes_what_the_encoder_writes(template, system_prompt, tokenizer, tmp_path):
    if template == BRACKETS and system_prompt:
        pytest.skip("takes no system message")
    chat = ChatTemplate(with_template(tokenizer, template), system_prompt)
    expected = ProblemProcessor(tokenizer, chat=chat).question(PROBLEM.question)
    tokenizer.chat_template = saved_template(tokenizer, chat)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "user", "content": PROBLEM.question.strip()}]
    ids = loaded.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == expected
    # Loaded and saved again it stays as it is, and means the same to the processor.
    again = ChatTemplate(loaded, system_prompt)
    assert ProblemProcessor(loaded, chat=again).question(PROBLEM.question) == expected
    assert saved_template(loaded, again) == loaded.chat_template


def test_the_plain_layout_is_a_template_of_the_saved_tokenizer(tokenizer):
    expected = ProblemProcessor(tokenizer).question(PROBLEM.question)
    tokenizer.chat_template = saved_template(tokenizer, None)
    messages = [{"role": "user", "content": PROBLEM.question}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == expected
    with pytest.raises(Exception, match="takes one question"):
        tokenizer.apply_chat_template([*messages, *messages], tokenize=False)
