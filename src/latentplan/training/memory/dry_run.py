"""One micro-batch of training on fake tensors: every allocation of the real code is counted, none is made.

Fake tensors have shapes, dtypes and a device but no memory, so the forward and backward pass of a model of
any size runs anywhere, through the same code as in training: latent passes, KV cache, decoder, checkpointing.

`AllocationLedger`: how many bytes are alive while tensors are computed, and the most that ever were.

It sees every tensor that an operation makes, on real tensors and on fake ones, which have shapes and no
memory, and notes when the storage behind it is freed. What the allocator adds (rounding, fragmentation,
workspaces of libraries) it does not see.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from latentplan.encoding.processor import Batch, EncodedProblem, ProblemProcessor
from latentplan.methods.base import get_method
from latentplan.modeling.efficiency.gradient_checkpointing import checkpoint_layers
from latentplan.modeling.efficiency.linear_layers import deferred_weight_gradients
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.rollout.logprobs import Scores, score
from latentplan.rollout.trajectories import Trajectories
from latentplan.training.configs import GRPOConfig, ModelArguments, RunConfig, SFTConfig
from latentplan.training.model_init import (
    as_dtype,
    choose_trained_weights,
    decoder_config,
    reasoner_config,
)
from latentplan.training.objectives import make_objective
from latentplan.training.parameter_groups import check_loss
from latentplan.training.trainable_model import LatentModelForTraining


class AllocationLedger(TorchDispatchMode):
    """Counts the bytes of storages that appear inside `with ledger:`.

    Args:
        existing: tensors whose storages were there before and are not counted.

    Attributes:
        live: bytes alive now.
        peak: bytes alive at most.
    """

    def __init__(self, existing: Iterable[torch.Tensor] = ()):
        super().__init__()
        self.live = self.peak = 0
        self._known: dict[int, int] = {}
        for tensor in existing:
            self._note(tensor, 0)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and counts what it has made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor, None)
        return result

    def _note(self, tensor: torch.Tensor, size: int | None) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._known:
            return
        self._known[key] = storage.nbytes() if size is None else size
        self.live += self._known[key]
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.live -= self._known.pop(key, 0)


NEW_TOKENS = 3
"""Rows that the latent tokens add to the embeddings, where the backbone has no spare ones."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a batch, the longest of it: of a question, a step and an answer; and steps a row."""

    question: int = 128
    step: int = 24
    answer: int = 8
    steps: int = 4


def build_system(
    model: ModelArguments,
    config: SFTConfig,
    backbone: PreTrainedConfig,
    decoder: PreTrainedConfig | None = None,
    spare_rows: int = 0,
) -> LatentModelForTraining:
    """The system that a recipe trains, from shapes alone, on the meta device.

    Args:
        model, config: the recipe.
        backbone: configuration of the backbone, without the latent tokens.
        decoder: configuration of another step decoder; None for a copy of the backbone.
        spare_rows: rows of the embeddings that no token uses yet.
    """
    with torch.device("meta"):
        return _build(model, config, backbone, decoder or backbone, spare_rows)


def _build(
    model: ModelArguments,
    config: SFTConfig,
    backbone: PreTrainedConfig,
    decoder: PreTrainedConfig,
    spare_rows: int,
) -> LatentModelForTraining:
    language_model = _language_model(backbone, model, spare_rows)
    tokens = {"start_latent_token_id": 0, "end_latent_token_id": 0, "pad_token_id": 0}
    settings = reasoner_config(config, language_model, tokens, {"eos_token_id": 0})
    reasoner = LatentReasoner(settings, language_model)
    objectives = get_method(config.method).objectives if config.objectives is None else config.objectives
    step_decoder = None
    if "step_decoder" in objectives:
        other = _language_model(decoder, model, spare_rows)
        step_decoder = StepDecoder(decoder_config(config, other, reasoner.config.hidden_size, 0, 0), other)
    choose_trained_weights(model, reasoner, step_decoder)
    return LatentModelForTraining(reasoner, step_decoder, objectives)


def _language_model(shape: PreTrainedConfig, model: ModelArguments, spare_rows: int) -> PreTrainedModel:
    rows = shape.vocab_size + max(0, NEW_TOKENS - spare_rows)
    grown = type(shape)(**{**shape.to_dict(), "vocab_size": rows})
    return AutoModelForCausalLM.from_config(
        grown, dtype=as_dtype(model.dtype), attn_implementation=model.attn_implementation or "sdpa"
    )


def as_if_on_a_device(system: LatentModelForTraining) -> None:
    """Puts fake tensors in the place of meta tensors, inside `FakeTensorMode`: code sees a real device."""
    made: dict[int, torch.Tensor] = {}  # tied weights stay tied
    for module in system.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in tensors.items():
                if old is None:
                    continue
                if id(old) not in made:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    is_parameter = isinstance(old, nn.Parameter)
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if is_parameter else new
                tensors[name] = made[id(old)]  # type: ignore[assignment]


def peak_of_supervised_step(system: LatentModelForTraining, config: SFTConfig, lengths: Lengths) -> int:
    """Bytes that forward and backward pass of one micro-batch need at most, beside weights and gradients.

    The batch is one of the curriculum's longest stage, with every slot in use.
    """
    batch = supervised_batch(system, config.per_device_train_batch_size, lengths)
    system.train()
    with _counting(system, config, batch.values()) as ledger, ledger:
        with _autocast(config), deferred_weight_gradients(system):
            loss = supervised_loss(system, batch)
        check_loss(loss)
        loss.backward()
    return ledger.peak


def supervised_batch(system: LatentModelForTraining, rows: int, lengths: Lengths) -> Batch:
    """Zeros in the shapes of a batch of the method's longest stage, in which every slot is in use."""
    method, config = system.method, system.reasoner.config
    problem = EncodedProblem(
        question=[0] * (lengths.question - (1 if config.has_latents else 0)),
        steps=[[0] * lengths.step] * min(lengths.steps, config.max_latent_steps or lengths.steps),
        answer=[0] * lengths.answer,
    )
    stages = [method.longest_stage(config.max_latent_steps)] * rows
    with unset_fake_temporarily():
        keys = torch.arange(rows)
        real = method.batch(_NoTokens(), [problem] * rows, stages, config, keys)
    batch = {
        name: torch.full(value.shape, int(name.endswith("_mask")), dtype=value.dtype)
        for name, value in real.items()
    }
    return {**batch, "question_mask": _padded_mask(rows, batch["question_ids"].shape[1])}


class _NoTokens(ProblemProcessor):
    """Lays out problems whose token ids are all 0."""

    def __init__(self) -> None:
        self.separator, self.marker = [], []
        self.eos = self.start_latent = self.end_latent = 0


def _padded_mask(rows: int, tokens: int) -> torch.Tensor:
    """Questions of different length, as in a real batch: without padding attention would need no mask."""
    mask = torch.ones(rows, tokens, dtype=torch.long)
    mask[0, 0] = 0
    return mask


def supervised_loss(system: LatentModelForTraining, batch: Batch) -> torch.Tensor:
    """Adds up the loss sums of all objectives; shapes alone do not tell the numbers of items."""
    passed = system.method.forward(system.reasoner, batch)
    sums = [system.objectives[name].loss_sum(system, passed, batch).sum() for name in system.weights]
    return torch.stack(sums).sum()


def peak_of_policy_step(system: LatentModelForTraining, config: GRPOConfig, lengths: Lengths) -> int:
    """Like `peak_of_supervised_step`, for a minibatch of trajectories that use every slot and every token."""
    objective = make_objective(config, system.reasoner)
    beside = objective.adds_reference_answers
    trajectories = zero_trajectories(system, config, lengths, beside)
    system.eval()  # without dropout, as in training: the policy that is scored is the one that sampled
    start = copy.deepcopy(system.reasoner).requires_grad_(False) if config.beta else None
    held = [each for each in vars(trajectories).values() if each is not None]
    held += [] if start is None else [*start.parameters(), *start.buffers()]
    with _counting(system, config, held) as ledger, ledger:
        if start is not None and config.gradient_checkpointing:
            checkpoint_layers(start.backbone)
        with _autocast(config), deferred_weight_gradients(system):
            scores = objective.scores(system, trajectories)
            loss = _everything(scores)
            if start is not None:
                now = replace(trajectories, latents=scores.chain.latents)
                loss = loss + _everything(score(start, now, objective.sampling))
        check_loss(loss)
        loss.backward()
    return ledger.peak


def _everything(scores: Scores) -> torch.Tensor:
    return scores.latents.sum() + scores.stops.sum() + scores.answers.sum()


def zero_trajectories(
    system: LatentModelForTraining, config: GRPOConfig, lengths: Lengths, reference_answers: bool = False
) -> Trajectories:
    """Makes a minibatch of one device: zeros in the shapes of `Trajectories`.

    With `reference_answers` each chain has one answer more.
    """
    shape = system.reasoner.config
    rows = config.per_device_train_batch_size
    questions, chains = rows // config.num_generations, rows // config.answers_per_latent
    rows += chains * reference_answers
    tokens, slots = config.max_completion_length, shape.num_slots
    decisions = torch.zeros(chains, slots // shape.latents_per_step, dtype=torch.long)
    return _FullTrajectories(
        question_ids=torch.zeros(questions, lengths.question, dtype=torch.long),
        question_mask=_padded_mask(questions, lengths.question),
        chain_keys=torch.zeros(chains, dtype=torch.long),
        latents=torch.zeros(chains, slots, shape.hidden_size),
        slot_mask=torch.ones(chains, slots, dtype=torch.long),
        stop_mask=torch.ones_like(decisions),
        stops=decisions,
        latent_log_probs=torch.zeros(chains, slots),
        stop_log_probs=torch.zeros(decisions.shape),
        answer_ids=torch.zeros(rows, tokens, dtype=torch.long),
        answer_mask=torch.ones(rows, tokens, dtype=torch.long),
        answer_log_probs=torch.zeros(rows, tokens),
        finished=torch.ones(rows, dtype=torch.bool),
    )


class _FullTrajectories(Trajectories):
    """Every answer is of the greatest length, which a mask without memory cannot tell."""

    @property
    def answer_places(self) -> torch.Tensor:
        return torch.zeros(self.answer_mask.numel(), dtype=torch.long)


@contextlib.contextmanager
def _counting(
    system: LatentModelForTraining, config: RunConfig, inputs: object
) -> Iterator[AllocationLedger]:
    """A ledger that leaves out the system's weights, their gradients and the batch."""
    if config.gradient_checkpointing:
        for part in (system.reasoner, system.step_decoder):
            if part is not None:
                checkpoint_layers(part.backbone)
    trained = [each for each in system.parameters() if each.requires_grad]
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    existing = [*system.parameters(), *system.buffers(), *gradients, *inputs]  # type: ignore[misc]
    yield AllocationLedger(existing)
    for parameter in trained:
        parameter.grad = None


def _autocast(config: RunConfig) -> torch.autocast:
    dtype = torch.float16 if config.fp16 else torch.bfloat16
    return torch.autocast("cpu", dtype=dtype, enabled=bool(config.bf16 or config.fp16))
