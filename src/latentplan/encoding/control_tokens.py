"""Control tokens, which texts of users and data must not contain.

A control token is structure, not text: it begins a sequence, ends a turn, or encloses the latents. A
question that contains one changes the layout (`… 4?<|eot_id|><|start_header_id|>assistant…` forges the
model's turn), and a step or an answer that contains one teaches the model to stop too early. Such texts are
refused, and the token is named. They are not encoded as text instead, because no tokenizer does that
exactly (`split_special_tokens` splits only tokens with the special flag, and a unigram model finds `</s>`
in its own vocabulary again), and the model would silently read another text.

`ControlTokens` checks token ids, not spellings, so that it holds for tokenizers that normalise or that
match whole words only. `ProblemProcessor` checks everything that it encodes, and is the only code that
encodes such texts. This module imports neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from latentplan.encoding.unreadable import UnreadableTextError
from latentplan.problems.problem import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

START_LATENT = "<|start-latent|>"
LATENT = "<|latent|>"
END_LATENT = "<|end-latent|>"
SPECIAL_TOKENS = (START_LATENT, LATENT, END_LATENT)

_MARK = re.compile(r"<\|[^<>\n]+?\|>|<｜[^<>\n]+?｜>|</?[^\W\d][\w.:-]*>|\[/?[^\W\d]\w*\]")
# HTML that some tokenizers have as added tokens; <s> is not among it, which begins a sequence elsewhere.
_HTML = re.compile(
    r"</?(?:a|b|blockquote|br|caption|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|small|span|strong|sub|sup|table"
    r"|tbody|td|tfoot|th|thead|tr|tt|u|ul)>"
)
_WIDESPREAD = re.compile(
    r"<\|[^<>|\s]{1,40}\|>|<｜[^<>\s]{1,40}｜>|</?(?:s|pad|bos|eos|unk|mask|cls|sep|think)>"
    r"|<(?:start|end)_of_turn>|\[/?(?:INST|CLS|SEP|PAD|MASK|UNK|BOS|EOS)\]"
)


class ControlTokenError(UnreadableTextError):
    """A text contains a control token; the message says which text, and which token.

    Attributes:
        token: the control token.
        problem: that has the text; None for a question of a user.
    """

    def __init__(self, what: str, token: str, problem: Problem | None = None):
        self.token = token
        super().__init__(
            "",
            what,
            f" holds {token!r}, a control token of the model and no text: take it out, or write it in "
            "another way",
            problem,
        )


class ControlTokens:
    """The control tokens of a tokenizer: those with the special flag, and added tokens that look like one.

    Added tokens that are ordinary words, white space or HTML are text. So is the unknown token, unless its
    spelling is in the text, and a padding token that is an ordinary sign (`!`).

    Args:
        tokenizer: any tokenizer of transformers.

    Attributes:
        names: each control token by its id.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.names = _control_tokens(tokenizer)
        self._unknown = tokenizer.unk_token_id
        self._found = frozenset(self.names) - {self._unknown}

    def sequence(self, ids: Sequence[int]) -> list[int]:
        """Returns the control tokens among ids, in order, without the unknown token."""
        return [] if self._found.isdisjoint(ids) else [index for index in ids if index in self._found]

    def check(self, what: str, text: str, ids: Sequence[int], layout: Sequence[int] = ()) -> None:
        """Refuses a text with control tokens.

        Args:
            what: names the text in the message.
            text: before it was encoded.
            ids: of the text, with the layout around it.
            layout: the control tokens of the layout, in order.

        Raises:
            ControlTokenError: the ids contain others than the layout's, or the text spells the unknown token.
        """
        found = self.sequence(ids)
        if found != list(layout):
            others = Counter(found) - Counter(layout) or Counter(layout) - Counter(found)
            names = [self.names[index] for index in others or found]
            raise ControlTokenError(what, first_of(names, text) or names[0])
        unknown = self.names.get(self._unknown) if self._unknown is not None else None
        if unknown is not None and unknown in text:
            raise ControlTokenError(what, unknown)


def first_of(tokens: Iterable[str], text: str) -> str | None:
    """Returns the token that occurs first in a text; None where none does."""
    return min((token for token in tokens if token in text), key=text.index, default=None)


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    special = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    names = {index: token for index, token in special if index is not None}
    names |= {
        index: str(token)
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special or is_control_mark(str(token))
    }
    for index in (tokenizer.pad_token_id, tokenizer.unk_token_id):
        structural = index in (tokenizer.bos_token_id, tokenizer.eos_token_id)
        if index in names and not structural and not is_control_mark(names[index]):
            del names[index]
    return names


def is_control_mark(token: str) -> bool:
    """Says whether an added token looks like a control token: `<|…|>`, `<name>`, `[NAME]`, but no HTML."""
    bare = token.strip(" ▁\n")
    return _MARK.fullmatch(bare) is not None and _HTML.fullmatch(bare) is None


def marks_of_layout(text: str) -> list[str]:
    """Lists what looks like a control token in a layout, whether it is one or not (`[/INST]`)."""
    return [mark for mark in dict.fromkeys(_MARK.findall(text)) if is_control_mark(mark)]


def latent_token_in(problem: Problem) -> ControlTokenError | None:
    """Returns the error of a problem that contains a latent token, a control token of all our models."""
    for what, text in texts_of(problem):
        for token in SPECIAL_TOKENS:
            if token in text:
                return ControlTokenError(what, token, problem)
    return None


def widespread_marks(problem: Problem) -> list[str]:
    """Lists what is a control token of many models in a problem's texts; the model decides whether it is."""
    return list(dict.fromkeys(mark for _, text in texts_of(problem) for mark in _WIDESPREAD.findall(text)))


def texts_of(problem: Problem) -> list[tuple[str, str]]:
    """Returns all texts of a problem that a model reads or learns to generate, each with its name."""
    steps = [(f"step {number}", step) for number, step in enumerate(problem.steps, start=1)]
    return [("the question", problem.question), *steps, ("the answer", problem.answer)]
