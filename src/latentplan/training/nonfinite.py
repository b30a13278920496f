"""The guard against NaN and Inf: a step with a non-finite loss or gradient changes no weight.

Where the Trainer has computed a step's gradients, and before it clips them, loss and gradient norm are
checked with one look at the device, and all processes come to the same decision. `on_nonfinite: stop` saves
the batch for inspection and ends the run; `skip` leaves the update out, which the next
log line counts.

Under DeepSpeed the engine steps during the backward pass, so there the loss is checked before it, and `skip`
is refused. What is saved: RUN/nonfinite-STEP/  inputs-PROCESS-MICROBATCH.safetensors  report-PROCESS.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import PreTrainedTokenizerBase, Trainer

from latentplan.common.files import write_atomically
from latentplan.training.configs import RunConfig


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """The 2-norm of all gradients, sharded (FSDP2) or not, as a plain scalar tensor; changes none of them."""
    norms = [
        _plain(get_total_norm([p.grad for p in group if p.grad is not None]))
        for group in _by_mesh(parameters)
    ]
    if not norms:
        return torch.zeros(())
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))


def clip_to(parameters: Iterable[nn.Parameter], max_norm: float, norm: torch.Tensor) -> None:
    """Scales the gradients, whose norm is `norm`, down to `max_norm`."""
    for group in _by_mesh(parameters):
        mesh = getattr(group[0].grad, "device_mesh", None)
        if mesh is not None:
            from torch.distributed.tensor import DTensor, Replicate

            clip_grads_with_norm_(group, max_norm, DTensor.from_local(norm, mesh, [Replicate()] * mesh.ndim))
        else:
            clip_grads_with_norm_(group, max_norm, norm)


def _by_mesh(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[Any, list[nn.Parameter]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            groups.setdefault(getattr(parameter.grad, "device_mesh", None), []).append(parameter)
    return list(groups.values())


def _plain(norm: Any) -> torch.Tensor:
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


_SHOWN_NAMES = 20


def save_report(
    folder: Path,
    model: nn.Module,
    micro_batches: Sequence[tuple[Any, torch.Tensor]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    step: int,
    seed: int,
    process: int,
    parts: Mapping[str, torch.Tensor],
    gradient_norm: torch.Tensor | None,
) -> None:
    """Writes the micro-batches as tensors and as text, the losses, and which gradients are not finite.

    Args:
        folder: where to write.
        model: with the gradients of the step, not clipped.
        micro_batches: this process's batches, each with its loss.
        tokenizer: to write the batches as text.
        step, seed, process: where the run was.
        parts: the last value of each metric recorded in the step.
        gradient_norm: of the whole step; None where it is not known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batches = [tensors_of(inputs) for inputs, _ in micro_batches]
    for index, tensors in enumerate(batches):
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            folder / f"inputs-{process}-{index}.safetensors",
        )
    report = {
        "step": step,
        "seed": seed,
        "process": process,
        "losses": [_number(loss) for _, loss in micro_batches],
        "parts": {name: _number(value) for name, value in parts.items()},
        "gradient_norm": None if gradient_norm is None else _number(gradient_norm),
        "nonfinite_gradients": nonfinite_names((name, p.grad) for name, p in model.named_parameters()),
        "nonfinite_weights": nonfinite_names(model.named_parameters()),
        "texts": [readable(tensors, tokenizer) for tensors in batches],
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    write_atomically(folder / f"report-{process}.json", text + "\n")


def nonfinite_names(tensors: Iterable[tuple[str, torch.Tensor | None]]) -> dict[str, Any]:
    """How many of the named tensors hold a NaN or Inf, their modules, and the first names."""
    found, total = [], 0
    for name, tensor in tensors:
        if tensor is None:
            continue
        total += 1
        local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        if not bool(torch.isfinite(local).all()):
            found.append(name)
    modules = sorted({".".join(name.split(".")[:2]) for name in found})
    return {"count": len(found), "of": total, "modules": modules, "first": found[:_SHOWN_NAMES]}


def tensors_of(inputs: Any) -> dict[str, torch.Tensor]:
    """The tensors of a batch by name: of a mapping, or of an object and the objects in it.

    A name that has been given already stands with that of its object: `old.latents`.
    """
    values = inputs if isinstance(inputs, Mapping) else vars(inputs)
    found: dict[str, torch.Tensor] = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            found[name] = value
        elif hasattr(value, "__dict__"):
            for inner, tensor in tensors_of(value).items():
                found[f"{name}.{inner}" if inner in found else inner] = tensor
    return found


def readable(tensors: Mapping[str, torch.Tensor], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[str]]:
    """The text of every `NAME_ids` of a batch that has a `NAME_mask`, row by row."""
    texts = {}
    for name, ids in tensors.items():
        mask = tensors.get(name.removesuffix("_ids") + "_mask")
        if name.endswith("_ids") and mask is not None and mask.shape == ids.shape:
            rows = [row[keep].tolist() for row, keep in zip(ids.cpu(), mask.bool().cpu(), strict=True)]
            texts[name.removesuffix("_ids")] = tokenizer.batch_decode(rows)
    return texts


def _number(value: Any) -> float | str:
    """A number that JSON can hold; `nan` and `inf` as text."""
    number = float(value)
    return number if abs(number) < float("inf") else str(number)


MAX_SKIPPED_IN_A_ROW = 20
"""So many steps are left out one after another before a run stops anyway."""
MAX_SAVED = 5
"""So many batches of a run are saved for inspection when steps are left out."""
ON_NONFINITE = ("stop", "skip")


class NonFiniteError(ValueError):
    """A loss or a gradient is NaN or infinite; no weight was updated, and the batch is where it says."""


class GuardedTrainer(Trainer):
    """`Trainer` that updates weights only from finite losses and gradients.

    Subclasses call `watch_loss` at the end of `compute_loss`.

    Raises:
        ValueError: `on_nonfinite` is neither stop nor skip.
    """

    args: RunConfig

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        _check_choice(self.args.on_nonfinite, self.accelerator.distributed_type)
        self.loss_parts: dict[str, Any] = {}
        self._micro_batches: list[tuple[Any, torch.Tensor]] = []
        # What this step has added to the Trainer's sum of losses.
        self._added_loss: float | torch.Tensor = 0.0
        self._skipped_in_a_row = self._num_saved = 0
        self._steps_since_log = self._skipped_since_log = self._lost_since_log = 0

    def watch_loss(self, inputs: Any, loss: torch.Tensor) -> None:
        """Keeps a micro-batch and its loss until the step is done."""
        self._micro_batches.append((inputs, loss.detach()))
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            self._judge(nn.Module(), None)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """The loss as the Trainer adds it up: one that is not finite adds nothing."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        share = torch.where(torch.isfinite(loss), loss, torch.zeros_like(loss))
        self._added_loss = self._added_loss + share
        return share

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        return self._guarded_norm(model, self.args.max_grad_norm)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        if grad_norm is None:
            grad_norm = self._guarded_norm(model, float("inf"))
        return super()._get_grad_norm(model, grad_norm)

    def _guarded_norm(self, model: nn.Module, max_norm: float) -> Any:
        """The norm of the gradients, clipped to `max_norm` if they are to be used."""
        if not self._reads_gradients():
            norm = self.accelerator.clip_grad_norm_(model.parameters(), max_norm)
            if self.accelerator.distributed_type != DistributedType.DEEPSPEED:
                # A gradient scaler deals with overflowing gradients itself.
                self._judge(model, None if self.accelerator.scaler is not None else norm)
            self._forget_step()
            return norm
        norm = gradient_norm(model.parameters())
        if self._judge(model, norm) and max_norm != float("inf"):
            clip_to(model.parameters(), max_norm, norm)
        self._forget_step()
        return norm

    def _reads_gradients(self) -> bool:
        kind = self.accelerator.distributed_type
        if self.accelerator.scaler is not None or kind in (DistributedType.DEEPSPEED, DistributedType.XLA):
            return False
        return kind != DistributedType.FSDP or self.accelerator.is_fsdp2

    def _forget_step(self) -> None:
        self._micro_batches = []
        self.loss_parts = {}
        self._added_loss = 0.0
        self._steps_since_log += 1

    def _judge(self, model: nn.Module, norm: torch.Tensor | None) -> bool:
        """Whether the step may be taken; the same on every process. Raises NonFiniteError to end the run."""
        losses = torch.stack([loss.float().reshape(()) for _, loss in self._micro_batches])
        bad_loss = ~torch.isfinite(losses).all()
        bad_norm = torch.zeros_like(bad_loss) if norm is None else ~torch.isfinite(norm).to(bad_loss.device)
        bad = torch.stack([bad_loss, bad_norm]).float()
        if self.args.world_size > 1:
            bad = self.accelerator.reduce(bad, reduction="sum")
        bad_loss_anywhere, bad_norm_anywhere = (count > 0 for count in bad.tolist())
        if not (bad_loss_anywhere or bad_norm_anywhere):
            self._skipped_in_a_row = 0
            return True
        self._leave_out(model, norm, bad_loss_anywhere)
        return False

    def _leave_out(self, model: nn.Module, norm: torch.Tensor | None, bad_loss: bool) -> None:
        self._skipped_in_a_row += 1
        stops = self.args.on_nonfinite == "stop" or self._skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW
        folder = Path(str(self.args.output_dir)) / f"nonfinite-{self.state.global_step + 1}"
        if stops or self._num_saved < MAX_SAVED:
            save_report(
                folder,
                model,
                self._micro_batches,
                cast(PreTrainedTokenizerBase, self.processing_class),
                step=self.state.global_step + 1,
                seed=self.args.seed,
                process=self.args.process_index,
                parts=self.loss_parts,
                gradient_norm=norm,
            )
            self._num_saved += 1
        if stops:
            self.accelerator.wait_for_everyone()
            raise NonFiniteError(self._message(folder, bad_loss))
        self._skipped_since_log += 1
        if bad_loss:
            self._lost_since_log += 1
            self._tr_loss -= self._added_loss  # the other parts of a loss that is left out
        # AcceleratedOptimizer.step does nothing while gradients count as not yet synchronised.
        self.accelerator.gradient_state._set_sync_gradients(False)

    def _message(self, folder: Path, bad_loss: bool) -> str:
        what = "the loss" if bad_loss else "the gradient (with a finite loss)"
        step = self.state.global_step + 1
        repeated = f" {self._skipped_in_a_row} times in a row" if self._skipped_in_a_row > 1 else ""
        return (
            f"optimisation step {step}: {what} is NaN or infinite{repeated}; no weight was updated by it, "
            f"and the batch is in {folder} (report-0.json says which parts and which gradients). Try a "
            "lower learning_rate, a lower max_grad_norm or a longer warm-up. The same command goes on from "
            "the last checkpoint; with --on_nonfinite skip it leaves such steps out"
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The loss is the mean over the steps that had one; `skipped_steps` counts the updates left out."""
        if "loss" in logs:
            counted = self._steps_since_log - self._lost_since_log
            if self._lost_since_log:
                logs["loss"] = logs["loss"] * self._steps_since_log / counted if counted else float("nan")
            if self.args.on_nonfinite == "skip":
                logs["skipped_steps"] = self._skipped_since_log
            self._steps_since_log = self._skipped_since_log = self._lost_since_log = 0
        super().log(logs, start_time)


def _check_choice(on_nonfinite: str, kind: DistributedType) -> None:
    if on_nonfinite not in ON_NONFINITE:
        raise ValueError(f"on_nonfinite must be one of {', '.join(ON_NONFINITE)}, got {on_nonfinite!r}")
    if on_nonfinite == "skip" and kind == DistributedType.DEEPSPEED:
        raise ValueError(
            "on_nonfinite: skip does not work under DeepSpeed, which updates the weights during the backward "
            "pass: use stop, DDP or FSDP2"
        )
