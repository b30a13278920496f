"""Text with probabilities: what the step decoder reads in latents, and how sure it is of each token.

Where there is no step decoder, the language model's own output layer says what it would have written instead
of the latent, as Coconut (arXiv:2412.06769, section 4) and CODI (arXiv:2502.21074) read theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from latentplan.modeling.efficiency.chunked_logits import ends
from latentplan.modeling.loading import LoadedModel
from latentplan.modeling.step_decoder import StepDecoder

_LOGITS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Piece:
    """One token's text and its probability.

    Attributes:
        text: as it stands between its neighbours; empty where a character is not complete yet.
        probability: given the tokens before it.
        other: text of the next most probable token; None where it was not requested.
        other_probability: of that one.
    """

    text: str
    probability: float
    other: str | None = None
    other_probability: float | None = None


@dataclass(frozen=True)
class Decoded:
    """One step as text.

    Attributes:
        text: what was read, without space around it.
        probability: of the whole text, its end included: the product over tokens.
        pieces: its tokens, without the end.
    """

    text: str
    probability: float
    pieces: tuple[Piece, ...]


@torch.no_grad()
def decode_steps(
    decoder: StepDecoder, tokenizer: PreTrainedTokenizerBase, latents: torch.Tensor, max_new_tokens: int = 64
) -> list[Decoded]:
    """Returns the greedy text of each step, and its probability under the decoder.

    Args:
        decoder: the step decoder.
        tokenizer: of its text.
        latents: `[steps, latents_per_step, hidden]`.
        max_new_tokens: tokens of a step at most.
    """
    ids = decoder.decode(latents, max_new_tokens)
    found = []
    rows = max(1, _LOGITS_AT_ONCE // max(1, ids.shape[1] * _vocabulary(decoder)))
    for start in range(0, len(ids), rows):
        part = ids[start : start + rows]
        best = decoder(latents[start : start + rows], part).float().softmax(dim=-1).topk(2, dim=-1)
        ended = ends(part, decoder.config.eos_token_id).long()
        lengths = (ended.cumsum(dim=1) - ended == 0).sum(dim=1)
        for row, length in enumerate(lengths.tolist()):
            has_end = bool(ended[row, length - 1])
            found.append(
                _decoded(tokenizer, part[row, :length], best.values[row], best.indices[row], has_end)
            )
    return found


def _decoded(
    tokenizer: PreTrainedTokenizerBase,
    ids: torch.Tensor,
    values: torch.Tensor,
    indices: torch.Tensor,
    has_end: bool,
) -> Decoded:
    """Decodes ids `[length]`, with eos if `has_end`, and the two best tokens `[longest, 2]` at each
    position.
    """
    length = len(ids)
    # In another batch shape the best two may change places by a rounding error; what was written counts.
    first = (indices[:length, 0] != ids).long()
    chosen = values[:length].gather(1, first.unsqueeze(1)).squeeze(1).tolist()
    others = values[:length].gather(1, 1 - first.unsqueeze(1)).squeeze(1).tolist()
    other_ids = indices[:length].gather(1, 1 - first.unsqueeze(1)).squeeze(1).tolist()
    texts = list(texts_of(tokenizer, ids[: length - has_end].tolist()))
    pieces = tuple(
        Piece(text, chosen[index], _token_text(tokenizer, other_ids[index]), others[index])
        for index, text in enumerate(texts)
    )
    probability = 1.0
    for value in chosen:
        probability *= value
    return Decoded("".join(texts).strip(), probability, pieces)


def text_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Decodes token ids to a text, special tokens left out."""
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def texts_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> Iterator[str]:
    """Yields what each token adds to the text; those that end within a character add nothing until it is
    whole.
    """
    written = ""
    for index in range(len(ids)):
        text = text_of(tokenizer, ids[: index + 1])
        whole = text if index == len(ids) - 1 else text.rstrip("\ufffd")
        yield whole[len(written) :]
        written = whole if len(whole) > len(written) else written


@torch.no_grad()
def next_words(model: LoadedModel, hidden: torch.Tensor, count: int = 3) -> list[list[Piece]]:
    """Returns the most probable tokens of the language model at hidden states `[latents, hidden]`."""
    best = model.reasoner.logits(hidden.unsqueeze(0).to(model.reasoner.backbone.dtype))[0]
    top = best.float().softmax(dim=-1).topk(count, dim=-1)
    return [
        [Piece(_token_text(model.tokenizer, index), value) for index, value in zip(*pair, strict=True)]
        for pair in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def _token_text(tokenizer: PreTrainedTokenizerBase, index: int) -> str:
    return str(tokenizer.decode([index]) or tokenizer.convert_ids_to_tokens(index))


def _vocabulary(decoder: StepDecoder) -> int:
    return int(decoder.get_output_embeddings().weight.shape[0])  # type: ignore[union-attr, arg-type, index]
