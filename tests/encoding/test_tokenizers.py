import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from latentplan.encoding.tokenizers import (
    SPECIAL_TOKENS,
    add_special_tokens,
    problem_texts,
    train_byte_level_bpe,
    train_word_level,
)


@pytest.fixture(scope="module")
def byte_level(clock_problems):
    tokenizer = train_byte_level_bpe(problem_texts(clock_problems), vocab_size=400)
    add_special_tokens(tokenizer)
    return tokenizer


def round_trip(tokenizer, text):
    return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=True)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
@example("<<16-3-4=9>>\n### 9")
@example("naïve café — 3½ €\t\r\n  two  spaces")
def test_byte_level_loses_no_text(byte_level, text):
    assert round_trip(byte_level, text) == text


def test_byte_level_keeps_digits_apart(byte_level):
    tokens = byte_level.convert_ids_to_tokens(byte_level.encode("1234=5", add_special_tokens=False))
    assert tokens == ["1", "2", "3", "4", "=", "5"]


@pytest.mark.parametrize("text", ["<<7+3=10>>", "### 9", "<<7+3=10>>\n<<10*2=9>>\n### 9", "<<10-1=9>>"])
def test_word_level_writes_equations_and_answers_as_they_were(clock_tokenizer, text):
    assert round_trip(clock_tokenizer, text) == text


def test_word_level_keeps_whole_numbers_and_the_words_of_a_question(clock_tokenizer, clock_problems):
    ids = clock_tokenizer.encode("<<10*2=9>>", add_special_tokens=False)
    assert clock_tokenizer.convert_ids_to_tokens(ids) == ["<<", "10", "*", "2", "=", "9", ">>"]
    for problem in clock_problems[:20]:
        ids = clock_tokenizer.encode(problem.question, add_special_tokens=False)
        assert clock_tokenizer.unk_token_id not in ids
        assert clock_tokenizer.convert_ids_to_tokens(ids) == problem.question.split()


def test_word_level_has_one_token_for_what_it_has_not_seen(clock_tokenizer):
    ids = clock_tokenizer.encode("platypus", add_special_tokens=False)
    assert ids == [clock_tokenizer.unk_token_id]


@pytest.mark.parametrize("train", [train_word_level, train_byte_level_bpe])
def test_special_tokens_are_single_tokens_and_survive_saving(train, tmp_path):
    tokenizer = train(["a b c 1 2"])
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    add_special_tokens(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "a " + "".join(SPECIAL_TOKENS) + " b"
    ids = loaded.encode(text, add_special_tokens=False)
    assert ids == tokenizer.encode(text, add_special_tokens=False)
    assert len(set(loaded.convert_tokens_to_ids(list(SPECIAL_TOKENS))) & set(ids)) == 3
    assert (loaded.pad_token_id, loaded.eos_token_id, len(loaded)) == (0, 1, len(tokenizer))


def test_a_tokenizer_without_padding_pads_with_its_end_token():
    tokenizer = train_word_level(["a b"])
    tokenizer.pad_token = None
    add_special_tokens(tokenizer)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id


def test_the_vocabulary_is_bounded(clock_problems):
    assert len(train_word_level(problem_texts(clock_problems), vocab_size=20)) == 20
