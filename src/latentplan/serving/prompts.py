"""Messages and prompts to questions, and questions to token ids that the model can read."""

from __future__ import annotations

from collections.abc import Sequence

from latentplan.encoding.control_tokens import ControlTokenError
from latentplan.modeling.loading import LoadedModel
from latentplan.rollout.solve import question_row
from latentplan.serving.protocol import ApiError, Message
from latentplan.serving.settings import ServeSettings

_CHARACTERS_A_TOKEN = 32
_SHOWN_WORDS = 5


def question_of(messages: Sequence[Message], system_prompt: str | None, last_message_only: bool) -> str:
    """Returns the question that a conversation asks: its last message, which has to be a user's.

    Args:
        messages: of the conversation.
        system_prompt: with which the model was trained; a system message may repeat it.
        last_message_only: whether everything before the last message is dropped, instead of refused.

    Raises:
        ApiError: 400, the last message is not a user's, or there are others that the model cannot take in.
    """
    last = len(messages) - 1
    if messages[last].role != "user":
        raise ApiError(
            400,
            f"the last message must be the question, with the role user, not {messages[last].role}",
            param=f"messages[{last}].role",
        )
    if not last_message_only:
        for index, message in enumerate(messages[:last]):
            _refuse_before_the_question(index, message, system_prompt)
    return messages[last].text


def _refuse_before_the_question(index: int, message: Message, system_prompt: str | None) -> None:
    param = f"messages[{index}]"
    if message.role not in ("system", "developer"):
        raise ApiError(
            400,
            "the model answers single questions and knows no conversation: send the question alone, or start "
            "the server with --last_message_only, which drops what stands before it",
            param=param,
            code="conversation_not_supported",
        )
    if index or system_prompt is None or message.text.strip() != system_prompt.strip():
        own = "without one" if system_prompt is None else f"with this one: {system_prompt!r}"
        raise ApiError(
            400,
            f"the model cannot follow a system message: it was trained {own}; leave it out, or start the "
            "server with --last_message_only, which drops it",
            param=param,
            code="system_message_not_supported",
        )


class Questions:
    """Reads questions for a model.

    Args:
        model: that answers them.
        settings: of the server.
    """

    def __init__(self, model: LoadedModel, settings: ServeSettings):
        self.model, self.settings = model, settings
        config = model.reasoner.config
        text_config = config.backbone_config.get_text_config(decoder=True)  # type: ignore[union-attr]
        self._positions: int | None = getattr(text_config, "max_position_embeddings", None)
        self._reserved = config.num_slots + 1 if config.has_latents else 0
        tokenizer = model.tokenizer
        self._unknown = tokenizer.unk_token_id

    def read(self, question: str, param: str) -> list[int]:
        """Returns a question's ids, with what tells a latent model to begin.

        Args:
            question: in words.
            param: where it stands in the request.

        Raises:
            ApiError: 400, it is empty, too long, or holds something that the model cannot read.
        """
        if not question.strip():
            raise ApiError(400, "the question is empty", param=param, code="empty_question")
        longest = self.settings.max_question_tokens
        if len(question) > longest * _CHARACTERS_A_TOKEN:
            raise self._too_long(f"{len(question)} characters", param)
        self._check_characters(question, param)
        try:
            ids = question_row(self.model, question)
        except ControlTokenError as error:
            raise ApiError(400, str(error), param=param, code="special_token") from error
        except ValueError as error:  # a chat template that refuses it
            raise ApiError(400, str(error), param=param) from error
        if len(ids) > longest or self.room(ids) < 1:
            raise self._too_long(f"{len(ids)} tokens", param)
        if self._unknown is not None and self._unknown in ids:
            raise ApiError(
                400,
                f"the model's vocabulary has no word for {self._unknown_words(question)}",
                param=param,
                code="unknown_words",
            )
        return ids

    def room(self, ids: Sequence[int]) -> int:
        """Returns text tokens for which the model has positions after this question and all its latents."""
        return 2**31 if self._positions is None else self._positions - len(ids) - self._reserved

    def _too_long(self, size: str, param: str) -> ApiError:
        allowed = self.settings.max_question_tokens
        why = f"this server takes {allowed} tokens (--max_question_tokens)"
        if self._positions is not None and self._positions - self._reserved - 1 < allowed:
            allowed = self._positions - self._reserved - 1
            why = f"the model has positions for {allowed} tokens, and those of its latents and its answer"
        return ApiError(
            400, f"the question is too long: {size}; {why}", param=param, code="context_length_exceeded"
        )

    def _check_characters(self, question: str, param: str) -> None:
        try:
            question.encode()
        except UnicodeEncodeError as error:
            raise ApiError(400, f"the question is not valid Unicode: {error.reason}", param=param) from error

    def _unknown_words(self, question: str) -> str:
        if not self.model.tokenizer.is_fast:
            return "some of the question"
        encoded = self.model.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        unknown = [span for token, span in pairs if token == self._unknown]
        words = dict.fromkeys(question[start:end].strip() for start, end in unknown)
        shown = ", ".join(map(repr, list(words)[:_SHOWN_WORDS]))
        return f"{shown} and {len(words) - _SHOWN_WORDS} more" if len(words) > _SHOWN_WORDS else shown
