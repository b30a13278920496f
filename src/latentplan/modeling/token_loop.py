"""The token loop, and the rule for the next input: the token that was chosen, or a mixture of tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from latentplan.modeling.counter_rng import Draws
from latentplan.modeling.decoding_state import DecodingState
from latentplan.modeling.efficiency.batch_compaction import UnfinishedRows, lay_out
from latentplan.modeling.efficiency.chunked_logits import ends
from latentplan.modeling.sampling import Temperature, choose, draw


@dataclass
class NextInput:
    """The input after a token: the embedding Σ weights · E[ids].

    Attributes:
        ids: `[rows, width]` int64.
        weights: `[rows, width]` float32; None where the input is a single token.
        memory: `[rows, n]`, the rule's memory of each row, or None.
        log_prob: `[rows]`, log-density of the rule's action; None where the rule draws nothing.
        action: `[rows, width]`, what the rule drew, or None.
    """

    ids: Tensor
    weights: Tensor | None = None
    memory: Tensor | None = None
    log_prob: Tensor | None = None
    action: Tensor | None = None


class InputRule:
    """Plain tokens: the next input is the token that was chosen. Other rules override `next_input`.

    Attributes:
        name: of the rule in settings.
        draws: whether the rule draws something at random at temperatures above 0.
    """

    name: ClassVar[str] = "plain"
    draws: ClassVar[bool] = False

    def memory(self, rows: int, device: torch.device) -> Tensor | None:
        """Returns the rule's memory of each row at the start, `[rows, n]`, or None; the loop keeps it."""
        return None

    def next_input(
        self, logits: Tensor, token: Tensor, memory: Tensor | None, keys: Tensor | None
    ) -> NextInput:
        """Decides the next input of each row.

        Args:
            logits: `[rows, vocabulary]`, from which the token was chosen.
            token: `[rows]`.
            memory: `[rows, n]`, or None.
            keys: `[rows]` int64, of the rule's draws; None draws nothing.
        """
        return NextInput(token.unsqueeze(1), memory=memory)

    def log_prob(self, logits: Tensor, ids: Tensor, action: Tensor) -> Tensor:
        """Computes the log-density `[n]` of recorded actions `[n, width]` under logits `[n, vocabulary]`."""
        return torch.zeros(ids.shape[0], device=ids.device)


PLAIN = InputRule()


class WritingModel(Protocol):
    """A model that generates tokens: a reasoner, or a step decoder."""

    config: Any

    def logits(self, hidden: Tensor) -> Tensor:
        """Maps last hidden states `[rows, hidden]` to logits `[rows, vocabulary]`."""

    def get_input_embeddings(self) -> nn.Module:
        """Returns the token embeddings."""


def embed_inputs(model: WritingModel, ids: Tensor, weights: Tensor | None) -> Tensor:
    """Embeds mixtures of tokens: ids and weights `[..., width]` to `[..., hidden]`."""
    embeds = model.get_input_embeddings()(ids[..., 0] if weights is None else ids)
    return embeds if weights is None else (embeds * weights.unsqueeze(-1).to(embeds.dtype)).sum(dim=-2)


@dataclass
class TokenStep:
    """One token of some rows, and the input after it.

    Attributes:
        rows: indices of the rows; a slice means all.
        token: `[rows]`.
        mask: `[rows]`, 0 for finished rows.
        log_prob: `[rows]`, or None where it was not computed.
        after: the next input.
    """

    rows: Tensor | slice
    token: Tensor
    mask: Tensor
    log_prob: Tensor | None
    after: NextInput


@dataclass
class Written:
    """Generated tokens and the inputs after them; 0 after a row's end.

    Attributes:
        ids, mask: `[rows, tokens]`; ids have padding after the end.
        log_probs: `[rows, tokens]`, or None where they were not computed.
        input_ids, input_weights: `[rows, tokens, width]`, of mixtures; None for plain tokens.
        input_log_probs, input_actions: `[rows, tokens]` and `[rows, tokens, width]`, of the rule's draws,
            or None.
    """

    ids: Tensor
    mask: Tensor
    log_probs: Tensor | None
    input_ids: Tensor | None
    input_weights: Tensor | None
    input_log_probs: Tensor | None
    input_actions: Tensor | None


def write_tokens(
    model: WritingModel,
    state: DecodingState,
    max_new_tokens: int,
    *,
    temperature: Temperature = 0.0,
    draws: Draws | None = None,
    rule: InputRule = PLAIN,
    scores: bool = True,
) -> Iterator[TokenStep]:
    """Generates token after token until every row has ended, and yields each at once.

    Args:
        model: the reasoner or the step decoder.
        state: of the sequences so far.
        max_new_tokens: tokens at most.
        temperature: 0 takes the most probable token.
        draws: keys of tokens and of the rule's draws; None takes the most probable token.
        rule: for the next input.
        scores: whether log-probabilities are computed.
    """
    eos, pad = model.config.eos_token_id, model.config.pad_token_id
    alive, active = state.mask.new_ones(state.rows), UnfinishedRows(state)
    memory, draws = rule.memory(state.rows, alive.device), draws or Draws()
    cold = not isinstance(temperature, Tensor) and temperature == 0
    input_keys = draws.inputs if rule.draws and not cold else None
    limit = model.config.max_positions
    room = None if limit is None else limit - state.positions_used()
    for position in range(max_new_tokens):
        logits = model.logits(active.part.hidden_before()[:, 0])
        keys, scale = active.column(draws.tokens, position), temperature
        if isinstance(scale, Tensor):
            scale = scale[active.index]
        log_prob = None
        if scores:
            token, log_prob = choose(logits, keys, scale)
        else:
            token = draw(logits, keys, scale)
        token = torch.where(alive.bool(), token, pad)
        after = rule.next_input(logits, token, memory, active.column(input_keys, position))
        yield TokenStep(active.index, token, alive, log_prob, after)
        if position + 1 == max_new_tokens:
            break
        alive = alive * ~ends(token, eos)
        if room is not None:
            alive = alive * (room[active.index] > position + 1)
        ids, weights, memory = after.ids, after.weights, after.memory
        unfinished = active.rows_to_keep(alive, position)
        if unfinished is not None:
            if not len(unfinished):
                break
            active.drop_finished(unfinished)
            alive, ids = alive[unfinished], ids[unfinished]
            weights = None if weights is None else weights[unfinished]
            memory = None if memory is None else memory[unfinished]
        active.part.append(embed_inputs(model, ids, weights).unsqueeze(1), alive.unsqueeze(1))


def write(model: WritingModel, state: DecodingState, max_new_tokens: int, **settings: Any) -> Written:
    """Runs `write_tokens`, which has the same arguments, to its end and joins the tokens."""
    rows, steps = state.rows, list(write_tokens(model, state, max_new_tokens, **settings))
    pad = model.config.pad_token_id

    def full(values: Sequence[Tensor | None]) -> Tensor | None:
        if not values or values[0] is None:
            return None
        parts = [
            (step.rows, each.unsqueeze(1))
            for step, each in zip(steps, values, strict=True)
            if each is not None
        ]
        return lay_out(parts, rows, len(steps))

    ids, mask = full([step.token for step in steps]), full([step.mask for step in steps])
    if ids is None or mask is None:
        nothing = state.mask.new_zeros(rows, 0)
        return Written(nothing, nothing, nothing.float(), None, None, None, None)
    log_probs = full([step.log_prob for step in steps])
    plain = steps[0].after.weights is None
    return Written(
        ids=ids.masked_fill(mask == 0, pad),
        mask=mask,
        log_probs=None if log_probs is None else log_probs * mask,
        input_ids=None if plain else full([step.after.ids for step in steps]),
        input_weights=full([step.after.weights for step in steps]),
        input_log_probs=full([step.after.log_prob for step in steps]),
        input_actions=full([step.after.action for step in steps]),
    )
