"""What a model cannot read: words that its vocabulary does not have, and texts beyond its positions.

One check for every command, made where texts become token ids (`ProblemProcessor`). Control tokens, which it
must not read, are in `control_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from latentplan.problems.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHOWN_WORDS = 5


class UnreadableTextError(ValueError):
    """A text that a model cannot read; the message says which text, why, and what to do.

    Args:
        before, what, after: the message, with the name of the text between its two parts.
        problem: that has the text; None for a question of a user.
    """

    def __init__(self, before: str, what: str, after: str, problem: Problem | None = None):
        self._around, self.problem = (before, after), problem
        super().__init__(f"{before}{what}{after}")

    def of(self, what: str) -> Self:
        """Returns the same error of a text with another name, such as `question 3 of 7`."""
        named = type(self).__new__(type(self))
        named.__dict__.update(self.__dict__)
        named.args = (what.join(self._around),)
        return named


class UnknownWordsError(UnreadableTextError):
    """A text has words that the vocabulary does not have; the model would read all of them as one token.

    Attributes:
        words: as the message shows them.
    """

    def __init__(self, what: str, words: str, problem: Problem | None = None):
        self.words = words
        super().__init__(
            f"the model's vocabulary has no word for {words} in ",
            what,
            ": write it in other words, or train the model with a larger vocab_size, or with tokenizer "
            "byte_level_bpe",
            problem,
        )


class TooLongError(UnreadableTextError):
    """A text has more tokens than the model has positions for.

    Attributes:
        length: tokens of the text.
        room: tokens that it may have.
    """

    def __init__(self, what: str, length: int, room: int, problem: Problem | None = None):
        self.length, self.room = length, room
        super().__init__(
            "",
            what,
            f" has {length} tokens, and the model has positions for {room} besides those of its latents and "
            "its answer",
            problem,
        )


def check_words(tokenizer: PreTrainedTokenizerBase, what: str, text: str, ids: Sequence[int]) -> None:
    """Refuses a text with unknown words.

    Args:
        tokenizer: that encoded it.
        what: names the text in the message.
        text: the text.
        ids: its token ids.

    Raises:
        UnknownWordsError: one of the ids is the unknown token's.
    """
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown in ids:
        raise UnknownWordsError(what, _unknown_words(tokenizer, text))


def _unknown_words(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    if not tokenizer.is_fast:
        return "some words"
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    spans = [span for index, span in pairs if index == tokenizer.unk_token_id]
    words = dict.fromkeys(text[start:end].strip() for start, end in spans)
    shown = ", ".join(map(repr, list(words)[:_SHOWN_WORDS]))
    return f"{shown} and {len(words) - _SHOWN_WORDS} more" if len(words) > _SHOWN_WORDS else shown
