"""Token ids on disk: the same as those made afresh, and a fingerprint of everything that decides them."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentplan.encoding.chat_template import ChatTemplate
from latentplan.encoding.processor import ProblemProcessor
from latentplan.encoding.token_store import EncodedStore, processor_fingerprint, write_encoded
from latentplan.encoding.tokenizers import (
    add_special_tokens,
    problem_texts,
    train_byte_level_bpe,
    train_word_level,
)
from latentplan.problems.problem import Problem

# hypothesis draws string constants of our code too, among them control tokens.
texts = st.text(min_size=1, max_size=15).filter(lambda text: "<|" not in text)
any_problems = st.lists(
    st.builds(Problem, texts, st.lists(texts, max_size=4).map(tuple), texts), min_size=1, max_size=5
)


@pytest.fixture(scope="module")
def bpe(clock_problems):
    tokenizer = train_byte_level_bpe(problem_texts(clock_problems), vocab_size=300)
    add_special_tokens(tokenizer)
    return tokenizer


@settings(max_examples=40, deadline=None)
@given(problems=any_problems)
def test_a_store_gives_back_what_the_encoder_gives(problems, bpe, tmp_path_factory):
    processor, folder = ProblemProcessor(bpe), tmp_path_factory.mktemp("encoded")
    assert write_encoded(folder, problems, processor)["num_problems"] == len(problems)
    store, afresh = EncodedStore(folder), processor.encode_all(problems)
    assert list(store) == afresh
    question, text = store.lengths()
    assert question.tolist() == [len(each.question) for each in afresh]
    assert text.tolist() == [sum(map(len, each.steps)) + len(each.answer) for each in afresh]
    assert list(pickle.loads(pickle.dumps(store))) == afresh


def test_problems_are_tokenised_in_portions(clock_tokenizer, clock_problems, tmp_path):
    processor, done = ProblemProcessor(clock_tokenizer), []
    problems = clock_problems * 8
    write_encoded(tmp_path, problems, processor, done.append)
    assert done == [1000, 1000, 400]
    assert EncodedStore(tmp_path)[2399] == processor(problems[-1])


def test_the_fingerprint_tells_tokenizers_and_layouts_apart(bpe, clock_tokenizer, clock_problems, tmp_path):
    same = train_byte_level_bpe(problem_texts(clock_problems), vocab_size=300)
    add_special_tokens(same)
    same(["some padding", "state"], padding=True)
    assert processor_fingerprint(ProblemProcessor(same)) == processor_fingerprint(ProblemProcessor(bpe))
    bpe.save_pretrained(tmp_path)
    loaded = type(bpe).from_pretrained(tmp_path)
    assert processor_fingerprint(ProblemProcessor(loaded)) == processor_fingerprint(ProblemProcessor(bpe))
    other_words = train_word_level(["other words"])
    add_special_tokens(other_words)
    different = {
        processor_fingerprint(ProblemProcessor(bpe)),
        processor_fingerprint(ProblemProcessor(bpe, answer_marker="#### ")),
        processor_fingerprint(ProblemProcessor(clock_tokenizer)),
        processor_fingerprint(ProblemProcessor(other_words)),
    }
    assert len(different) == 4


def test_the_fingerprint_tells_chat_templates_apart(clock_problems):
    tokenizer = train_byte_level_bpe(problem_texts(clock_problems), vocab_size=300)
    add_special_tokens(tokenizer)
    tokenizer.chat_template = (
        "{%- for message in messages -%}[{{ message['role'] }}] {{ message['content'] }}{{ eos_token }}"
        "{%- endfor -%}{%- if add_generation_prompt -%}[assistant] {% endif %}"
    )
    chats = [
        None,
        ChatTemplate(tokenizer),
        ChatTemplate(tokenizer, "Be brief."),
        ChatTemplate(tokenizer, "Be."),
    ]
    assert len({processor_fingerprint(ProblemProcessor(tokenizer, chat=chat)) for chat in chats}) == 4
