"""Can a model read this question at all?"""

from __future__ import annotations

from latentplan.modeling.loading import LoadedModel

_SHOWN = 5


def check_question(model: LoadedModel, question: str, max_tokens: int) -> None:
    """Raises ValueError on a question that is empty, too long, or holds words unknown to the model.

    Args:
        model: whose tokenizer reads it.
        question: in words.
        max_tokens: of the question, as the model reads it.
    """
    if not question.strip():
        raise ValueError("The question is empty.")
    # Tokens hardly ever stand for more than 32 characters: nothing that long is given to the tokenizer.
    tokens = len(model.encoder.question(question)) if len(question) <= 32 * max_tokens else None
    if tokens is None or tokens > max_tokens:
        counted = f"{len(question)} characters" if tokens is None else f"{tokens} tokens"
        raise ValueError(f"The question is too long: {counted}, this server takes {max_tokens} tokens.")
    unknown = unknown_words(model, question)
    if unknown:
        listed = ", ".join(unknown[:_SHOWN]) + (" …" if len(unknown) > _SHOWN else "")
        raise ValueError(
            f"The model does not know: {listed}. It reads only the words that it was trained on."
        )


def unknown_words(model: LoadedModel, question: str) -> list[str]:
    """The different pieces of the question that its tokenizer has no token for, in order."""
    tokenizer = model.tokenizer
    if tokenizer.unk_token_id is None or not tokenizer.is_fast:
        return []
    read = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    pairs = zip(read["input_ids"], read["offset_mapping"], strict=True)
    return list(
        dict.fromkeys(question[begin:end] for index, (begin, end) in pairs if index == tokenizer.unk_token_id)
    )
