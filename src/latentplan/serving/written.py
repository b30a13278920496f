"""The text of an answer while it is being written."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Written:
    """What can be said of an answer's text so far, without ever having to take it back.

    Space at both ends is left out, as in `solve`. Held back until more is known: space that may turn out to
    be the last, a character of which only some bytes are there, and what may become a stop sequence.

    Args:
        tokenizer: of the answer.
        stop: texts that end the answer; they are not part of it.

    Attributes:
        text: what is certain; all of it, once the answer has ended.
        stopped: whether a stop sequence was written.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = ()):
        self._tokenizer, self._stop = tokenizer, stop
        self.text = ""
        self.stopped = False

    def grow(self, ids: Sequence[int], ended: bool) -> str:
        """Takes all token ids of the answer so far; what has become certain since the last time."""
        if self.stopped:
            return ""
        text = str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).lstrip()
        found = [text.index(each) for each in self._stop if each in text]
        if found:
            self.stopped, ended, text = True, True, text[: min(found)]
        if not ended:
            text = text.rstrip(_INCOMPLETE)
            text = text[: len(text) - self._perhaps_stop(text)]
        text = text.rstrip()
        if not ended and not text.startswith(self.text):
            return ""
        new = text[len(self.text) :]
        self.text = text
        return new

    def _perhaps_stop(self, text: str) -> int:
        """Characters at the end with which a stop sequence may have begun."""
        lengths = [
            length
            for each in self._stop
            for length in range(1, min(len(each), len(text) + 1))
            if text.endswith(each[:length])
        ]
        return max(lengths, default=0)
