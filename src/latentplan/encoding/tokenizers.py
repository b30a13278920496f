"""Tokenizers trained from scratch, and the three tokens of latent reasoning in a tokenizer and its
embeddings.

Backbones that are trained from scratch get a tokenizer that is trained on the training text: `word_level`
has one token for each word, number and sign (about 60 in the clock domain), and `byte_level_bpe` encodes
any text, with one token for each digit. Both are saved as ordinary fast tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from latentplan.encoding.control_tokens import END_LATENT, LATENT, SPECIAL_TOKENS, START_LATENT
from latentplan.problems.problem import Problem

PAD, EOS, UNKNOWN = "<|pad|>", "<|eos|>", "<|unk|>"
_WORDS = r"\d+|[A-Za-z]+|<<|>>|###|\n|[^\sA-Za-z\d]"


def train_word_level(texts: Iterable[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Trains a tokenizer of words, whole numbers and single signs; drops white space, except line breaks.

    Decoding inserts a space before words only, so that equations and answers are restored exactly.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), behavior="removed"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(r"^(?=[A-Za-z])"), " "),
            decoders.Replace(Regex(r"^###$"), "### "),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, special_tokens=[PAD, EOS, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _as_fast_tokenizer(tokenizer)


def train_byte_level_bpe(texts: Iterable[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Trains byte-level BPE, which encodes any text; each digit is a token, so numbers have one encoding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS, UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _as_fast_tokenizer(tokenizer)


TOKENIZERS: dict[str, Callable[..., PreTrainedTokenizerFast]] = {
    "word_level": train_word_level,
    "byte_level_bpe": train_byte_level_bpe,
}


def problem_texts(problems: Iterable[Problem]) -> Iterator[str]:
    """Yields all texts of each problem that a model reads or generates: question, steps, answer."""
    for problem in problems:
        yield f"{problem.question}\n"
        yield from problem.steps
        yield f"### {problem.answer}"


def _as_fast_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, padding_side="left"
    )


__all__ = [
    "END_LATENT",
    "LATENT",
    "SPECIAL_TOKENS",
    "START_LATENT",
    "add_special_tokens",
    "initialise_special_tokens",
    "resize_embeddings",
]


def add_special_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    """Adds the three latent tokens to the tokenizer, and a padding token where it has none.

    Raises:
        ValueError: it has neither a padding token nor an end token, or gives a latent token the id of another
            token.
    """
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(SPECIAL_TOKENS)}, replace_extra_special_tokens=False
    )
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[token] for token in SPECIAL_TOKENS]
    taken = sorted(token for token, index in vocabulary.items() if index in ids)
    if len(taken) > len(set(ids)):
        raise ValueError(
            f"{_name(tokenizer)} has several tokens of one id: {', '.join(taken)}; save it again"
        )
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise no_end_token(tokenizer)
        tokenizer.pad_token = tokenizer.eos_token


def no_end_token(tokenizer: PreTrainedTokenizerBase) -> ValueError:
    """Returns the error of a tokenizer that has no end token, for the caller to raise."""
    return ValueError(
        f"{_name(tokenizer)} has no end token (eos_token), and an answer ends with it: name one of its "
        'tokens in tokenizer_config.json, such as "eos_token": "</s>"'
    )


def _name(tokenizer: PreTrainedTokenizerBase) -> str:
    return f"the tokenizer of {tokenizer.name_or_path or 'this model'}"


def num_rows(tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the number of rows that an embedding table needs: the largest id plus one.

    `len(tokenizer)` is the number of tokens, which is smaller where ids are unused.
    """
    return max(tokenizer.get_vocab().values()) + 1


def grow_embeddings(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grows the backbone's embeddings to one row for each of the tokenizer's ids; never removes rows."""
    if num_rows(tokenizer) > _embedding_tables(backbone)[0].shape[0]:
        backbone.resize_token_embeddings(num_rows(tokenizer), mean_resizing=False)


def resize_embeddings(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Grows the backbone's embeddings to the tokenizer's ids and initialises the latent tokens in them."""
    grow_embeddings(backbone, tokenizer)
    initialise_special_tokens(backbone, tokenizer)


@torch.no_grad()
def initialise_special_tokens(backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Sets the embeddings of the latent tokens, which a text model has never learned.

    They copy the embedding of `<<` where that is one token, so that the first latent starts from the
    model's state at the beginning of a step (Coconut, arXiv:2412.06769); else they get the mean of all
    other embeddings.
    """
    special = torch.tensor(tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)))
    marker = tokenizer.encode("<<", add_special_tokens=False)
    others = sorted(set(tokenizer.get_vocab().values()) - set(special.tolist()))
    known = len(marker) == 1 and marker[0] != tokenizer.unk_token_id
    for weight in _embedding_tables(backbone):
        weight[special] = weight[marker[0]].clone() if known else weight[others].mean(dim=0)


def _embedding_tables(backbone: PreTrainedModel) -> list[torch.Tensor]:
    """Returns the input and output embeddings, one table where they are tied."""
    modules: list[Any] = [backbone.get_input_embeddings(), backbone.get_output_embeddings()]
    tables = {id(module.weight): module.weight for module in modules if module is not None}
    return list(tables.values())
