"""Conversations to questions, and tokens to text that never has to be taken back."""

from __future__ import annotations

import pytest

from latentplan.serving.model_worker import Detokenizer
from latentplan.serving.prompts import Questions, question_of
from latentplan.serving.protocol import ApiError, Message
from latentplan.serving.responses import coherence
from latentplan.serving.settings import ServeSettings


def messages(*pairs):
    return [Message(role=role, content=content) for role, content in pairs]


@pytest.mark.parametrize(
    ("said", "system_prompt", "message"),
    [
        ([("user", "1?"), ("assistant", "1"), ("user", "2?")], None, "knows no conversation"),
        ([("system", "be kind"), ("user", "2?")], None, "it was trained without one"),
        ([("system", "be kind"), ("user", "2?")], "think", "trained with this one: 'think'"),
        ([("user", "2?"), ("assistant", "2")], None, "the last message must be the question"),
    ],
)
def test_conversations_that_the_model_cannot_follow(said, system_prompt, message):
    with pytest.raises(ApiError, match=message) as caught:
        question_of(messages(*said), system_prompt, False)
    assert caught.value.status == 400


def test_conversations_that_it_can():
    own = messages(("system", " think\n"), ("user", "2?"))
    assert question_of(own, "think", False) == "2?"
    longer = messages(("system", "be kind"), ("user", "1?"), ("assistant", "1"), ("user", "2?"))
    assert question_of(longer, None, True) == "2?"
    parts = [Message(role="user", content=[{"type": "text", "text": "2"}, {"type": "text", "text": "?"}])]
    assert question_of(parts, None, False) == "2?"


def test_questions_must_leave_positions_for_latents_and_answer(make_system, as_loaded):
    model = as_loaded(make_system("atp_latent", backbone={"max_position_embeddings": 20}))
    questions = Questions(model, ServeSettings())
    ids = questions.read("the dial starts at 7 .", "prompt[0]")
    # 20 positions: the question, 3 steps of 2 latents, <|end-latent|>, and what is left.
    assert questions.room(ids) == 20 - len(ids) - 7
    with pytest.raises(ApiError, match="the model has positions for 11 tokens"):
        questions.read("the dial starts at 7 . where is it ? where is it ?", "prompt[0]")


class Letters:
    """A tokenizer whose tokens are the characters of an alphabet."""

    def __init__(self, alphabet):
        self.alphabet = alphabet

    def decode(self, ids, skip_special_tokens):
        return "".join(self.alphabet[index] for index in ids)


def pieces(text, stop=(), alphabet=None):
    """The pieces in which a text becomes certain, one character at a time, and the `Detokenizer`."""
    alphabet = alphabet or sorted(set(text))
    ids = [alphabet.index(character) for character in text]
    written = Detokenizer(Letters(alphabet), stop)
    told = [written.grow(ids[: count + 1], count + 1 == len(ids)) for count in range(len(ids))]
    return told, written


def test_space_at_the_ends_is_left_out_and_held_back():
    told, written = pieces(" ab  c ")
    assert told == ["", "a", "b", "", "", "  c", ""]
    assert written.text == "ab  c"


def test_half_a_character_is_held_back():
    told, _ = pieces("a\ufffdb")
    assert told == ["a", "", "\ufffdb"]


def test_what_may_become_a_stop_sequence_is_held_back():
    told, written = pieces("ab#c##d", ["##", "#x"])
    assert told == ["a", "b", "", "#c", "", "", ""]
    assert (written.text, written.stopped) == ("ab#c", True)


def test_a_stop_sequence_that_stays_unfinished_is_text():
    told, written = pieces("ab#", ["##"])
    assert told == ["a", "b", "#"]
    assert not written.stopped


def test_the_first_of_several_stop_sequences_counts():
    _, written = pieces("abcd", ["d", "cd", "bx"])
    assert written.text == "ab"


def test_coherence_of_equations_and_of_sentences():
    assert coherence(["<<3+4=7>>", "<<7*2=14>>"], "14", "") == 1.0
    # Equations that lead nowhere are not read as sentences.
    assert coherence(["<<3+4=7>>", "soon"], "14", "") == 0.0
    chain = ["Tom is a terp.", "Every terp is a brim.", "Every brim is a lem."]
    question = "Every terp is a brim. Every brim is a lem. Tom is a terp. Is Tom a lem?"
    assert coherence(chain, "Tom is a lem.", question) == 1.0
