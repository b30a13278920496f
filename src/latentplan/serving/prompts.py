"""Messages and prompts to questions, and questions to token ids that the model can read."""

from __future__ import annotations

from collections.abc import Sequence

from latentplan.encoding.control_tokens import ControlTokenError
from latentplan.encoding.unreadable import TooLongError, UnknownWordsError
from latentplan.modeling.loading import LoadedModel
from latentplan.rollout.solve import question_row
from latentplan.serving.protocol import ApiError, Message
from latentplan.serving.settings import ServeSettings

_CHARACTERS_A_TOKEN = 32


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
        model.processor.refuses_unknown_words = True

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
        except UnknownWordsError as error:
            raise ApiError(400, str(error), param=param, code="unknown_words") from error
        except TooLongError as error:
            raise self._too_long(f"{error.length} tokens", param) from error
        except ValueError as error:  # a chat template that refuses it
            raise ApiError(400, str(error), param=param) from error
        if len(ids) > longest or self.room(ids) < 1:
            raise self._too_long(f"{len(ids)} tokens", param)
        return ids

    def room(self, ids: Sequence[int]) -> int:
        """Returns text tokens for which the model has positions after this question and all its latents."""
        return self.model.processor.room(len(ids) - self.model.reasoner.config.num_start_tokens)

    def _too_long(self, size: str, param: str) -> ApiError:
        allowed = self.settings.max_question_tokens
        why = f"this server takes {allowed} tokens (--max_question_tokens)"
        room = self.model.processor.room(1)
        if room < allowed:
            allowed = room
            why = f"the model has positions for {allowed} tokens, and those of its latents and its answer"
        return ApiError(
            400, f"the question is too long: {size}; {why}", param=param, code="context_length_exceeded"
        )

    def _check_characters(self, question: str, param: str) -> None:
        try:
            question.encode()
        except UnicodeEncodeError as error:
            raise ApiError(400, f"the question is not valid Unicode: {error.reason}", param=param) from error
