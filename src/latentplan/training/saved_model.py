"""What is saved computes what is trained: compared before the first step, and before checkpoints go.

Before the first step the way to a finished model is taken once: a checkpoint is written and loaded, its
adapters are made to change something and are merged, and the merged model is written and loaded. What each of
these computes for a small fixed batch must be what the one before it computes. This takes as long as two
checkpoints, the memory of one model on the CPU of the first process, and no more disk than a checkpoint.

Of weights that are spread over devices (FSDP2, DeepSpeed), the first process gathers them as for a
checkpoint; the trained model itself is run where it is, by all processes.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerBase, TrainerCallback

from latentplan.modeling.loading import LoadedModel, load_model
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.step_decoder import StepDecoder
from latentplan.training.distributed import full_state_dict, is_sharded
from latentplan.training.trainable_model import LatentModelForTraining, save_merged
from latentplan.training.trainer import LatentTrainer

logger = logging.getLogger(__name__)
Outputs = dict[str, torch.Tensor]
_ROWS, _TOKENS = 2, 8
TOLERANCES = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 0.1}
"""Largest mean difference in parts of the mean size, by dtype: what rounding does in a deep model."""
_ACROSS_DEVICES = 1e-2
"""In float32 between a GPU, which may multiply in TF32, and the CPU."""
_SMALLEST = 1e-3
"""A mean size below this counts as this, so that outputs of zero can be compared."""


class SavedModelError(ValueError):
    """A saved model computes something else than the trained one; the message says by how much."""


@torch.no_grad()
def outputs(reasoner: LatentReasoner, decoder: StepDecoder | None) -> Outputs:
    """What a reasoner and its step decoder compute for two rows of tokens from the whole vocabulary.

    Returns:
        By name, in float32 on the CPU: logits `[2, tokens, vocabulary]` of the text, of what follows a latent
        and of the decoder; the latents' `[2, 1, hidden]` mean and log σ²; the stop head's logits.
    """
    device = reasoner.device
    vocabulary = reasoner.backbone.config.get_text_config(decoder=True).vocab_size
    ids = torch.linspace(0, vocabulary - 1, _ROWS * _TOKENS, dtype=torch.float64).long()
    ids = ids.reshape(_ROWS, _TOKENS).to(device)
    with torch.autocast(device.type, enabled=False):
        context = reasoner.start(ids, torch.ones_like(ids))
        hidden = context.read()
        found = {"logits": reasoner.logits(hidden)}
        if reasoner.latent_head is not None:
            drawn = reasoner.latent_head(hidden[:, -1:])
            found["latents"] = drawn.mean
            if drawn.log_variance is not None:
                found["log-variances"] = drawn.log_variance
            if reasoner.stop_head is not None:
                found["stop logits"] = reasoner.stop_head(drawn.mean)
            context.append(drawn.mean, torch.ones_like(ids[:, :1]))
            found["logits after a latent"] = reasoner.logits(context.read())
        if decoder is not None:
            latents = hidden[:, -decoder.config.latents_per_step :]
            found["step decoder's logits"] = decoder(latents, ids)
    return {name: value.float().cpu() for name, value in found.items()}


def trained_outputs(trainer: LatentTrainer) -> Outputs:
    """The `outputs` of the model that is being trained, without dropout; all processes must call this."""
    system = trainer.model
    modes = {module: module.training for module in system.modules()}
    system.eval()
    try:
        if is_sharded(trainer.accelerator):
            with torch.no_grad():
                return trainer.model_wrapped(compute=_outputs_of)
        return _outputs_of(system)
    finally:
        for module, mode in modes.items():
            module.training = mode


def _outputs_of(system: LatentModelForTraining) -> Outputs:
    return outputs(system.reasoner, system.step_decoder)


def check_saved(folder: Path, expected: Outputs, tolerance: float) -> LoadedModel:
    """Loads a saved model, which must compute what is expected; the batch is that of `outputs`.

    Raises:
        SavedModelError: it computes something else.
    """
    # Written just now, by code that runs already; weights that are not finite are said below.
    loaded = load_model(folder, trust_remote_code=True, sound=False)
    found = outputs(loaded.reasoner, loaded.step_decoder)
    for name, value in expected.items():
        if not torch.isfinite(value).all():
            logger.warning("what is saved cannot be compared: the trained model's %s are not finite", name)
            continue
        scale = value.abs().mean().clamp(min=_SMALLEST)
        difference = float((found[name] - value).abs().mean() / scale)
        if not difference <= tolerance:
            raise SavedModelError(
                f"what is saved is not what is trained: the {name} of the model that was saved and loaded "
                f"again differ by {difference:.1%} on average, and rounding explains {tolerance:.1%}"
            )
    return loaded


def tolerance_of(trainer: LatentTrainer) -> float:
    """The tolerance for the coarsest dtype that the trained model computes in."""
    system = trainer.model
    parts = [system.reasoner] if system.step_decoder is None else [system.reasoner, system.step_decoder]
    dtypes = {cast(torch.dtype, part.backbone.dtype) for part in parts}
    if is_sharded(trainer.accelerator):  # an engine casts weights when it gathers them
        mixed = {"bf16": torch.bfloat16, "fp16": torch.float16}
        dtypes |= {mixed[name] for name in [str(trainer.accelerator.mixed_precision)] if name in mixed}
    allowed = [TOLERANCES.get(dtype, TOLERANCES[torch.float32]) for dtype in dtypes]
    return max(allowed if trainer.args.device.type == "cpu" else [*allowed, _ACROSS_DEVICES])


class SaveRehearsal(TrainerCallback):
    """Before the first step, writes, loads and merges the model once.

    Args:
        trainer: the trainer, whose model is prepared when training begins.
        folder: where to write, on the file system of the checkpoints; removed afterwards.
    """

    def __init__(self, trainer: LatentTrainer, folder: Path):
        self.trainer, self.folder = trainer, folder

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Rehearses, unless a checkpoint is there from which the run goes on.

        Raises:
            SavedModelError: in all processes, where something else comes back than was written.
        """
        if state.global_step:
            return
        start, trainer = time.perf_counter(), self.trainer
        expected, weights = trained_outputs(trainer), full_state_dict(trainer)
        error = None
        if trainer.is_world_process_zero():
            tokenizer = cast(PreTrainedTokenizerBase, trainer.processing_class)
            try:
                rehearse(self.folder, trainer.model, tokenizer, weights, expected, tolerance_of(trainer))
            except Exception as caught:
                error = caught
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)
        self._raise_everywhere(error)
        trainer.leave_out_of_clock(time.perf_counter() - start)

    def _raise_everywhere(self, error: Exception | None) -> None:
        """The others would wait for the first process for ever."""
        message = [None if error is None else str(error)]
        if self.trainer.args.world_size > 1:
            broadcast_object_list(message)
        if message[0] is not None:
            raise SavedModelError(
                f"nothing was trained, because the model could not be saved as it is: {message[0]}"
            ) from error


def rehearse(
    folder: Path,
    system: LatentModelForTraining,
    tokenizer: PreTrainedTokenizerBase,
    weights: Mapping[str, torch.Tensor] | None,
    expected: Outputs,
    tolerance: float,
) -> None:
    """Takes the way to a finished model once, in an empty folder.

    Args:
        folder: where to write.
        system: the model that is trained.
        tokenizer: what is saved with it.
        weights: all its weights, where they are spread over devices.
        expected: its `outputs`.
        tolerance: largest mean difference of what comes back, in parts of the mean size.

    Raises:
        SavedModelError: something else comes back.
    """
    with torch.random.fork_rng(devices=[]):  # models are made, whose weights are drawn before they are loaded
        system.save_pretrained(folder, tokenizer, weights)
        loaded = check_saved(folder, expected, tolerance)
        if not system.has_adapters:
            return
        _shake(loaded)
        shaken = outputs(loaded.reasoner, loaded.step_decoder)
        save_merged(loaded, folder)
        del loaded
        check_saved(folder, shaken, tolerance)


@torch.no_grad()
def _shake(loaded: LoadedModel) -> None:
    """Has adapters change what a model computes: new ones do not, and could be lost without a trace."""
    generator = torch.Generator().manual_seed(0)
    for part in (loaded.reasoner, loaded.step_decoder):
        for name, weight in [] if part is None else part.named_parameters():
            if "lora_" in name:
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.1)
