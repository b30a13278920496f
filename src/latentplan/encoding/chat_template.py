"""Questions in a chat template, and the template of a saved tokenizer.

With an instruct backbone the question is the user's turn, and latents and answer are the assistant's turn,
which ends with the template's end-of-turn token.
"""

from __future__ import annotations

from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

_MARK = "{#- latentplan's own layout -#}"
PLAIN_TEMPLATE = (
    _MARK + "{%- if messages | length != 1 or messages[0]['role'] != 'user' -%}"
    "{{- raise_exception('this model takes one question: a single message of the role user') -}}"
    "{%- endif -%}"
    "{{- bos_token or '' -}}{{- messages[0]['content'] | trim + '\\n' -}}"
)
# Some templates write today's date into the prompt, which would change the question every day.
_DATE = "26 Jul 2024"
_FIXED_DATE = "{%- macro strftime_now(format) -%}" + _DATE + "{%- endmacro -%}"


class ChatTemplate:
    """A tokenizer's chat template, applied to single questions.

    Args:
        tokenizer: a tokenizer with a chat template.
        system_prompt: the system message before the question, or None.

    Attributes:
        end_of_turn: id of the special token that ends the assistant's turn; the tokenizer's eos if there is
            none.

    Raises:
        ValueError: the tokenizer has no chat template, or the template refuses these messages.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system_prompt: str | None = None):
        template = tokenizer.chat_template
        if not template or (isinstance(template, str) and template.startswith(_MARK)):
            raise ValueError(
                f"chat_template is set, but the tokenizer of {tokenizer.name_or_path or 'this model'} has no "
                "chat template: choose an instruct model, or leave chat_template off"
            )
        self.tokenizer, self.system_prompt = tokenizer, system_prompt
        self.end_of_turn = self._end_of_turn()

    def question(self, question: str) -> str:
        """Formats a question by the template, up to the start of the assistant's turn."""
        return self._render([{"role": "user", "content": question.strip()}], True)

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        if self.system_prompt is not None:
            messages = [{"role": "system", "content": self.system_prompt}, *messages]
        try:
            rendered: Any = self.tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                date_string=_DATE,
                strftime_now=lambda format: _DATE,
            )
        except TemplateError as error:
            hint = " (set no system_prompt?)" if self.system_prompt is not None else ""
            raise ValueError(f"the chat template refuses a question: {error}{hint}") from error
        return rendered

    def _end_of_turn(self) -> int:
        answer = "42"
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
        rest = self._render(turns, False).rpartition(answer)[2]
        tokenizer = self.tokenizer
        special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        for index in tokenizer.encode(rest, add_special_tokens=False):
            if index in special:
                return index
        if tokenizer.eos_token_id is None:
            raise ValueError("neither the chat template nor the tokenizer says how an answer ends")
        return tokenizer.eos_token_id


def saved_template(tokenizer: PreTrainedTokenizerBase, chat: ChatTemplate | None) -> str | dict[str, str]:
    """Returns the template with which `apply_chat_template` formats a question as in training.

    It is our plain layout, or the chat template with the system prompt and a fixed date.
    """
    template = tokenizer.chat_template
    if chat is None:
        return PLAIN_TEMPLATE
    if not isinstance(template, str) or template.startswith(_FIXED_DATE):
        return template
    prefix = _FIXED_DATE + "{%- set date_string = '" + _DATE + "' -%}"
    if chat.system_prompt is not None:
        message = "{'role': 'system', 'content': " + _quoted(chat.system_prompt) + "}"
        prefix += "{%- if messages[0]['role'] != 'system' -%}"
        prefix += "{%- set messages = [" + message + "] + messages -%}{%- endif -%}"
    return prefix + template


def _quoted(text: str) -> str:
    """Returns a string literal of Jinja."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
