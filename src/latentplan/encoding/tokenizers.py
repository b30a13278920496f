"""Small tokenizers trained from scratch on the training text, for backbones that are trained from scratch.

`word_level` keeps every word, number and sign as one token (the clock world has about 60 of them);
`byte_level_bpe` takes any text, with digits kept apart. Both are saved as ordinary fast tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from latentplan.problems.problem import Problem

PAD, EOS, UNKNOWN = "<|pad|>", "<|eos|>", "<|unk|>"
_WORDS = r"\d+|[A-Za-z]+|<<|>>|###|\n|[^\sA-Za-z\d]"


def train_word_level(texts: Iterable[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Words, whole numbers and single signs as tokens; white space is dropped, except line breaks.

    Decoding puts a space before words only, so that equations and answers read as they were written.
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
    """Byte-level BPE: no text is unknown to it. Every digit is a token, so that arithmetic has one form."""
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
    """Everything of a problem that a model reads or writes: question, steps, answer."""
    for problem in problems:
        yield f"{problem.question}\n"
        yield from problem.steps
        yield f"### {problem.answer}"


def _as_fast_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN, padding_side="left"
    )
