"""The thinking process: the code that turns hidden states into latents.

A process draws the next block of latents. It may look ahead in the decoding state and never changes it; the
loops append the block: `think` (training, rollouts, scoring, interventions, traces), and continuous
batching. A model's configuration names its process, so that training and rollouts use the same one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from latentplan.common.plugin_settings import NoSettings
from latentplan.common.plugins import CodeSource, import_named, names_own_code, settings_from
from latentplan.modeling.counter_rng import Draws, columns, slots
from latentplan.modeling.decoding_state import DecodingState, Lookahead
from latentplan.modeling.efficiency.batch_compaction import UnfinishedRows, lay_out
from latentplan.modeling.latent_heads import LatentDistribution, gaussian_log_prob, is_gaussian
from latentplan.modeling.latent_length import LatentLength, StopDecision
from latentplan.modeling.sampling import Temperature

if TYPE_CHECKING:
    from latentplan.modeling.configuration import LatentReasonerConfig
    from latentplan.modeling.reasoner import LatentReasoner


@dataclass
class Given:
    """Latents that are given instead of drawn.

    They have two meanings, which differ where a process makes drafts: *observed* latents were drawn by the
        policy
    (scoring), so drafts are those of the policy; *clamped* latents are an intervention, which drafts
    contain, too.

    Attributes:
        latents: `[rows, slots, hidden]`.
        mask: bool `[rows, slots]`, true for given latents; None where all are given.
        clamped: bool `[rows, slots]`, true for interventions; None where there are none.
    """

    latents: Tensor
    mask: Tensor | None
    clamped: Tensor | None

    @classmethod
    def observed(cls, latents: Tensor, clamped: Tensor | None = None) -> Given:
        """Returns a recorded chain, in which some latents may have been interventions."""
        return cls(latents, None, clamped)

    @classmethod
    def intervened(cls, latents: Tensor, mask: Tensor) -> Given:
        """Returns latents of which those under `mask` are interventions; the others are drawn."""
        return cls(latents, mask, mask)

    def rows(self, index: Tensor | slice) -> Given:
        """Returns the given latents of some rows."""
        return self._each(lambda part: part[index])

    def block(self, start: int | Tensor, size: int) -> Given:
        """Returns the slots `[start, start + size)` of each row."""
        return self._each(lambda part: columns(part, start, size))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Given:
        mask, clamped = (None if part is None else change(part) for part in (self.mask, self.clamped))
        return Given(change(self.latents), mask, clamped)

    def in_drafts(self) -> Given | None:
        """Returns the latents that drafts contain, too: the interventions."""
        return None if self.clamped is None else Given(self.latents, self.clamped, self.clamped)

    def put(self, latents: Tensor) -> Tensor:
        """Puts the given latents into their slots of `[rows, size, hidden]`."""
        given = self.latents.to(latents)
        return given if self.mask is None else torch.where(self.mask.unsqueeze(-1), given, latents)


@dataclass
class Block:
    """Latents of each row that are drawn together.

    Attributes:
        latents: `[rows, size, hidden]` float32, drawn or given.
        distribution: of each latent, including given ones.
        hidden: `[rows, size, hidden]`, the backbone's hidden states from which the distributions are
            computed.
    """

    latents: Tensor
    distribution: LatentDistribution
    hidden: Tensor


class ThinkingProcess(nn.Module):
    """Base class of thinking processes.

    A process may have parameters, which are saved and trained as `reasoner.thinking`.

    Attributes:
        settings_class: the dataclass of its settings, an instance of which `__init__` gets. A process without
            one gets its settings as keyword arguments.
        one_pass: whether given latents can be read in one pass, because a latent depends only on the sequence
            before it.
    """

    settings_class: ClassVar[type] = NoSettings
    one_pass = False

    def block_size(self, config: LatentReasonerConfig) -> int:
        """Returns the number of latents of a block: a divisor of `num_slots`, a multiple or divisor of c."""
        return 1

    def draft_columns(self, slots: int, latents_per_step: int) -> int:
        """Counts the draft columns that the backbone reads for `slots` latents, to estimate FLOPs."""
        return 0

    def next_block(
        self,
        model: LatentReasoner,
        state: Lookahead,
        size: int,
        noise: Tensor | None,
        temperature: Temperature,
        given: Given | None,
    ) -> Block:
        """Draws the next block of every row of `state`.

        Args:
            model: the reasoner, with its heads and embeddings.
            state: the sequence so far.
            size: number of latents; less than `block_size` where fewer slots are left.
            noise: `[rows, size, hidden]`, standard normal; None uses the means.
            temperature: scale of σ.
            given: latents of this block that are given.
        """
        raise NotImplementedError

    def distribution(self, model: LatentReasoner, hidden: Tensor) -> LatentDistribution:
        """Maps hidden states `[..., hidden]` to one latent distribution each."""
        assert model.latent_head is not None
        return model.latent_head(hidden)

    def draws(self, model: LatentReasoner) -> bool:
        """Says whether latents are drawn from Gaussians, and not deterministic; the latent head decides."""
        return model.latent_head is not None and is_gaussian(model.latent_head, model.config.hidden_size)

    def draw(
        self,
        model: LatentReasoner,
        hidden: Tensor,
        noise: Tensor | None,
        temperature: Temperature,
        given: Given | None,
    ) -> Block:
        """Draws a latent from each hidden state `[rows, n, hidden]`, and inserts the given latents."""
        if hidden.shape[1] == 1:
            # As a matrix: a strided [rows, 1, hidden] selects another kernel, which rounds differently.
            flat = self.distribution(model, hidden[:, 0])
            distribution = LatentDistribution(
                flat.mean.unsqueeze(1),
                None if flat.log_variance is None else flat.log_variance.unsqueeze(1),
            )
        else:
            distribution = self.distribution(model, hidden)
        if isinstance(temperature, Tensor):
            temperature = temperature[:, None, None]
        latents = distribution.sample(noise, temperature)
        if given is not None:
            latents = given.put(latents)
        return Block(latents, distribution, hidden)

    def teacher_force(
        self,
        model: LatentReasoner,
        state: DecodingState,
        latents: Tensor,
        mask: Tensor,
        clamped: Tensor | None = None,
    ) -> LatentChain:
        """Reads recorded latents and computes the distribution of each under `model`.

        Afterwards the latents are read or pending in `state`.

        Args:
            model: the reasoner.
            state: of the questions.
            latents: `[rows, slots, hidden]`.
            mask: `[rows, slots]`, 1 where a slot is in use.
            clamped: bool `[rows, slots]`, true for interventions; None where there are none.
        """
        if not self.one_pass:
            return think(model, state, LatentLength(mask), Draws(), 0.0, Given.observed(latents, clamped))
        if not latents.shape[1]:
            return LatentChain.empty(mask, model.config.hidden_size)
        hidden = state.hidden_before(latents, mask, keep=True)[:, :-1]
        distribution = self.distribution(model, hidden)
        return LatentChain(latents, distribution.mean, distribution.log_variance, mask)


class Sequential(ThinkingProcess):
    """One latent after another, each from the hidden state before it (Coconut, CODI, CoLaR, ATP-Latent)."""

    one_pass = True

    def next_block(
        self,
        model: LatentReasoner,
        state: Lookahead,
        size: int,
        noise: Tensor | None,
        temperature: Temperature,
        given: Given | None,
    ) -> Block:
        """Draws one latent of each row; the arguments are those of the base class."""
        return self.draw(model, state.hidden_before(), noise, temperature, given)


THINKING_PROCESSES: dict[str, type[ThinkingProcess]] = {"sequential": Sequential}


def process_class(name: str, source: CodeSource | None = None) -> type[ThinkingProcess]:
    """Finds a process by name: one of `THINKING_PROCESSES`, or the user's own as `package.module:Class`.

    Args:
        name: of the process.
        source: the checkpoint that names it; None where the user does.

    Raises:
        UntrustedCodeError: a checkpoint names code, and is not trusted.
        ValueError: there is no such process.
    """
    found = THINKING_PROCESSES.get(name)
    if found is None and names_own_code(name):
        found = import_named(name, "thinking", source)
    if not (isinstance(found, type) and issubclass(found, ThinkingProcess)):
        raise ValueError(
            f"thinking must be one of {', '.join(sorted(THINKING_PROCESSES))}, or a ThinkingProcess as "
            f"'package.module:Class' (latentplan.methods.pccot:Jacobi, or one of yours), got {name!r}"
        )
    return found


def thinking_process(
    name: str, settings: Mapping[str, Any] | None = None, source: CodeSource | None = None
) -> ThinkingProcess:
    """Makes a process by name.

    Args:
        name: of the process.
        settings: its own settings; those that are absent have their defaults.
        source: the checkpoint that names it; None where the user does.

    Raises:
        UntrustedCodeError: a checkpoint names code, and is not trusted.
        ValueError: there is no such process, or it has no such settings.
    """
    found: Any = process_class(name, source)
    try:
        if found.settings_class is NoSettings:
            return found(**(settings or {}))
        return found(settings_from(found.settings_class, settings, f"thinking {name}"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"thinking_settings of {name}: {error}") from error


@dataclass
class LatentChain:
    """The latents of a batch, and the distributions that they were drawn from.

    Attributes:
        latents: `[batch, slots, hidden]`, including the latents at which the stop head stopped.
        mean: `[batch, slots, hidden]`.
        log_variance: `[batch, slots, hidden]`, log σ², or None for deterministic latents.
        mask: `[batch, slots]`, 1 where a slot is in use.
        decision: of the stop head, `[batch, steps]`; None where it made none.
    """

    latents: Tensor
    mean: Tensor
    log_variance: Tensor | None
    mask: Tensor
    decision: StopDecision | None = None

    @classmethod
    def empty(cls, mask: Tensor, hidden_size: int) -> LatentChain:
        """Returns a chain without slots; `mask` is `[batch, 0]`."""
        nothing = torch.zeros(*mask.shape, hidden_size, device=mask.device)
        return cls(nothing, nothing, None, mask)

    def log_prob(self, latent_temperature: float) -> Tensor:
        """Computes Σ_d log N(z; μ, (temperature·σ)²) of each slot in use, `[batch, slots]`; 0 without σ."""
        if self.log_variance is None or latent_temperature == 0:
            return self.latents.new_zeros(self.latents.shape[:-1])
        log_variance = self.log_variance + 2 * math.log(latent_temperature)
        return gaussian_log_prob(self.latents, self.mean, log_variance, self.mask)


@dataclass
class ThinkingStep:
    """A block that was appended to some rows.

    Attributes:
        rows: indices of the rows; a slice means all.
        start: the block's first slot.
        block: the latents.
        mask: `[rows, size]`, 1 where a slot is in use.
        decision: of the stop head, or None.
    """

    rows: Tensor | slice
    start: int
    block: Block
    mask: Tensor
    decision: StopDecision | None


def think_blocks(
    model: LatentReasoner,
    state: DecodingState,
    length: LatentLength,
    draws: Draws,
    temperature: Temperature = 1.0,
    given: Given | None = None,
) -> Iterator[ThinkingStep]:
    """Draws block after block and appends each; the last one is left pending.

    Rows that the stop head has ended leave the batch when they are half of it (never under gradients, where
    lengths are known). Unused slots are computed, because the stop head learns from them, and are masked
    for all that follows.

    Args:
        model: the reasoner.
        state: of the questions, read or pending.
        length: the length rule.
        draws: the noise of the latents.
        temperature: scale of σ; 0 takes the means.
        given: latents that are given.
    """
    process, config = model.thinking, model.config
    num_slots, block_size, active = length.slots(config), process.block_size(config), UnfinishedRows(state)
    alive = state.mask.new_ones(state.rows)
    for start in range(0, num_slots, block_size):
        size, rows = min(block_size, num_slots - start), active.index
        noise = None if draws.latents is None else draws.latents[rows, start : start + size]
        known = None if given is None else given.block(start, size).rows(rows)
        scale = temperature[rows] if isinstance(temperature, Tensor) else temperature
        block = process.next_block(model, active.part, size, noise, scale, known)
        mask, decision = length.rows(rows).decide(model, block.latents, start, alive)
        yield ThinkingStep(rows, start, block, mask, decision)
        latents = block.latents
        if decision is not None:
            alive = mask[:, -1]
            unfinished = None
            if start + size < num_slots:
                # A row may use only some slots of a block that is longer than a step: it leaves at the next
                # block.
                unfinished = active.rows_to_keep(mask.any(dim=1).long(), start // config.latents_per_step)
            if unfinished is not None:
                if not len(unfinished):
                    break
                active.set_finished_aside(unfinished)
                latents, mask, alive = latents[unfinished], mask[unfinished], alive[unfinished]
        active.part.append(latents, mask)
    active.restore()


def think(
    model: LatentReasoner,
    state: DecodingState,
    length: LatentLength,
    draws: Draws,
    temperature: Temperature = 1.0,
    given: Given | None = None,
) -> LatentChain:
    """Runs `think_blocks` to its end and joins the blocks, with zeros after a row's end."""
    rows, num_slots = state.rows, length.slots(model.config)
    steps = list(think_blocks(model, state, length, draws, temperature, given))
    if not steps:
        return LatentChain.empty(state.mask.new_zeros(rows, num_slots), model.config.hidden_size)

    def full(values: list[Tensor], of: list[ThinkingStep] = steps, width: int = num_slots) -> Tensor:
        return lay_out([(step.rows, each) for step, each in zip(of, values, strict=True)], rows, width)

    distributions = [step.block.distribution for step in steps]
    log_variances = [each.log_variance for each in distributions if each.log_variance is not None]
    decided = [step for step in steps if step.decision is not None]
    decision = None
    if decided:
        width = num_slots // model.config.latents_per_step
        decision = StopDecision(
            *(
                full([getattr(step.decision, name) for step in decided], decided, width)
                for name in StopDecision.names
            )
        )
    return LatentChain(
        latents=full([step.block.latents for step in steps]),
        mean=full([each.mean for each in distributions]),
        log_variance=full(log_variances) if log_variances else None,
        mask=full([step.mask for step in steps]),
        decision=decision,
    )


def unroll(
    model: LatentReasoner, state: DecodingState, slot_mask: Tensor, noise_keys: Tensor | None = None
) -> LatentChain:
    """Draws a chain of known length, as training does; gradients flow through all of it.

    Args:
        model: the reasoner.
        state: of the questions, which are pending.
        slot_mask: `[batch, slots]`, 1 where a slot is in use.
        noise_keys: `[batch]`, keys of the latents' noise; None uses the means.
    """
    draws = Draws()
    if noise_keys is not None and slot_mask.shape[1] and model.is_gaussian:
        draws = Draws(latents=slots(noise_keys, slot_mask.shape[1], model.config.hidden_size))
    return think(model, state, LatentLength(slot_mask), draws)


def read_text(state: DecodingState, embeds: Tensor, text_mask: Tensor) -> Tensor:
    """Reads the pending inputs and the text; returns the last hidden state *before* each text token.

    The last text token is not read, because nothing is predicted from it.

    Args:
        state: of the sequences before the text.
        embeds: `[batch, text, hidden]`.
        text_mask: `[batch, text]`.
    """
    return state.hidden_before(embeds[:, :-1], text_mask[:, :-1], keep=True)
