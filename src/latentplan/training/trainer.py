"""What both trainers share: named metrics, evaluations, whole checkpoints, and the learning rate by step."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from transformers.integrations.deepspeed import deepspeed_load_checkpoint
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_utils import SaveStrategy, rotate_checkpoints

from latentplan.common.run_files import SAMPLES
from latentplan.modeling.loading import LoadedModel, processor_of
from latentplan.rollout.solve import Solution
from latentplan.training.checkpoints import (
    STAGING,
    KnownBest,
    best_checkpoint,
    load_optimizer,
    load_weights,
    read_weights,
    remove_unfinished,
    save_optimizer,
    write_manifest,
)
from latentplan.training.distributed import full_state_dict, make_models_whole, set_precision, whole_weights
from latentplan.training.flops import token_flops
from latentplan.training.loggers import ProgressDisplay, RunTensorBoard, log_samples
from latentplan.training.nonfinite import GuardedTrainer
from latentplan.training.parameter_groups import decay, freeze_parts, give_factors
from latentplan.training.trainable_model import LatentModelForTraining
from latentplan.training.validation import MAX_NEW_TOKENS, Sums, ValidationSet, means_of, rollout_sums

SCHEDULER_FILE = "scheduler.json"
SHOWN_SAMPLES = 8
"""Solutions of validation problems that are written to samples.jsonl at each evaluation."""


class LatentTrainer(GuardedTrainer):
    """Trains a `LatentModelForTraining`: metrics by name, evaluations, whole checkpoints.

    Wherever its settings ask for it, it evaluates by rollouts on validation problems; the result does not
    depend on batch size or number of processes, and evaluating changes nothing of the training. Checkpoints
    are whole models, written aside and renamed. A progress display and TensorBoard's files in the run
    directory replace the Trainer's own.

    Args:
        validation: the problems, or None.
        args, kwargs: as for `Trainer`.

    Raises:
        ValueError: `metric_for_best_model` is not among what is measured.
    """

    model: LatentModelForTraining

    def __init__(self, *args: Any, validation: ValidationSet | None = None, **kwargs: Any):
        self.validation = validation
        super().__init__(*args, eval_dataset=validation, **kwargs)
        self._show_progress()
        self._check_best_metric()
        make_models_whole()
        self.factors: dict[str, float] = dict(self.args.learning_rate_factors or {})
        freeze_parts(self.model, self.factors)
        self.model_accepts_loss_kwargs = False
        set_precision(self.accelerator, self.model)
        self._sums: dict[str, Any] = defaultdict(float)  # tensors stay on their device until a line is logged
        self._counts: dict[str, Any] = defaultdict(int)
        self._tokens = 0
        self._flops = 0.0
        self._count_parameters()
        self._clock = time.perf_counter()
        self._output_dir: str | None = None

    def _show_progress(self) -> None:
        """Replaces the Trainer's progress display and TensorBoard folder by those of the run directory."""
        for shown in (ProgressCallback, PrinterCallback):
            self.remove_callback(shown)
        if self.pop_callback(TensorBoardCallback) is not None:
            self.add_callback(RunTensorBoard(str(self.args.output_dir)))
        self.progress = ProgressDisplay(disabled=bool(self.args.disable_tqdm))
        self.add_callback(self.progress)
        self.add_callback(KnownBest())

    def _check_best_metric(self) -> None:
        best = self.args.metric_for_best_model
        if self.validation is None or best is None:
            return
        if best.removeprefix("eval_") not in self.measures():
            raise ValueError(
                f"metric_for_best_model must be one of {', '.join(self.measures())}, got {best!r}"
            )

    def _count_parameters(self) -> None:
        """Computes the operations for one token, which do not change while the model trains."""
        recomputes = bool(self.args.gradient_checkpointing)
        self.reasoner_flops = token_flops(self.model.reasoner, recomputes)
        if not any(each.requires_grad for each in self.model.reasoner.parameters()):
            self.reasoner_flops = self.reasoner_flops._replace(training=self.reasoner_flops.forward)
        self.decoder_flops = token_flops(self.model.step_decoder, recomputes)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains, and gives the terminal back however it ends."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self.progress.close()

    def loaded_model(self) -> LoadedModel:
        """Returns the model that is trained, as rollouts need it."""
        tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
        reasoner = self.model.reasoner
        return LoadedModel(
            reasoner, self.model.step_decoder, tokenizer, processor_of(reasoner.config, tokenizer)
        )

    def objective_means(self, indices: range) -> dict[str, float]:
        """Returns further measures of the problems at `indices`, already over all processes."""
        return {}

    def current_stage(self) -> int | None:
        """Returns the stage of the curriculum that the weights have been trained at; None without one."""
        return None

    def max_new_tokens(self) -> int:
        """Returns the most text tokens of a validation rollout."""
        return MAX_NEW_TOKENS

    def measures(self) -> list[str]:
        """Lists what `metric_for_best_model` may be."""
        config = self.model.reasoner.config
        plans = ["coherence"] if self.model.step_decoder is not None or config.written_steps else []
        latents = ["latents"] if config.has_latents else []
        read = ["reconstruction"] if latents and self.model.step_decoder is not None else []
        return ["accuracy", "tokens", *latents, *plans, *read]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Rolls the validation problems out greedily; logs the measures and `objective_means` as `eval_NAME`.

        Raises:
            ValueError: there are no validation problems.
        """
        validation = eval_dataset or self.validation
        if validation is None:
            raise ValueError("there are no validation problems: set eval_strategy and eval_dataset_name")
        started = time.perf_counter()
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad(), whole_weights(self), self.compute_loss_context_manager():
            values = self.model(compute=lambda system: self._measure(validation))
        self.model.train(was_training)
        values["seconds"] = time.perf_counter() - started
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.leave_out_of_clock(values["seconds"])
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _measure(self, validation: ValidationSet) -> dict[str, float]:
        indices = validation.part(self.args.process_index, self.args.world_size)
        problems = [validation.problems[index] for index in indices]
        with self.progress.task("validates", total=len(problems)) as on_progress:
            sums, solutions = rollout_sums(
                self.loaded_model(),
                problems,
                stage=self.current_stage(),
                batch_size=self.args.per_device_eval_batch_size,
                max_new_tokens=self.max_new_tokens(),
                on_progress=on_progress,
            )
        self._write_solutions(validation, solutions[:SHOWN_SAMPLES])
        return {**self.objective_means(indices), **means_of(self.all_reduce(sums))}

    def all_reduce(self, sums: Sums) -> Sums:
        """Adds sums and counts over all processes."""
        if self.args.world_size == 1:
            return sums
        # MPS knows no float64.
        dtype = torch.float32 if self.args.device.type == "mps" else torch.float64
        local = torch.tensor(list(sums.values()), dtype=dtype, device=self.args.device)
        total = self.accelerator.reduce(local, reduction="sum").tolist()
        return {name: (value, count) for name, (value, count) in zip(sums, total, strict=True)}

    def _write_solutions(self, validation: ValidationSet, solutions: list[Solution]) -> None:
        rows = []
        for problem, solution in zip(validation.problems, solutions, strict=False):
            row = {"step": self.state.global_step, "split": "validation", "question": problem.question}
            rows.append({**row, "answer": problem.answer, **vars(solution)})
        self.write_samples("validation/samples", rows)

    def write_samples(self, tag: str, rows: Sequence[dict[str, Any]]) -> None:
        """Appends rows to samples.jsonl, on the first process, and sends them to the trackers."""
        if not self.args.should_save:
            return
        with (Path(str(self.args.output_dir)) / SAMPLES).open("a", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        log_samples(self.callback_handler.callbacks, tag, rows, self.state.global_step)

    def record(self, **values: float | torch.Tensor) -> None:
        """Adds values to the averages of the next log line, which are of those that are finite."""
        for name, value in values.items():
            number = value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
            number = number.detach()
            finite = torch.isfinite(number)
            self.loss_parts[name] = number
            self._sums[name] = self._sums[name] + torch.where(finite, number, torch.zeros_like(number))
            self._counts[name] = self._counts[name] + finite

    def record_sums(self, **sums: tuple[float | torch.Tensor, float | torch.Tensor]) -> None:
        """Adds sums over some items, given with their number, to the averages of the next log line.

        Each item weighs the same, however many of them each process has; without any nothing is logged.
        """
        for name, (value_sum, num_items) in sums.items():
            if num_items:
                self.loss_parts[name] = torch.as_tensor(value_sum / num_items).detach()
                self._sums[name] = self._sums[name] + value_sum
                self._counts[name] = self._counts[name] + num_items

    @contextmanager
    def unrecorded(self) -> Iterator[None]:
        """Forgets what is recorded inside."""
        kept = self._sums, self._counts, self.loss_parts
        self._sums, self._counts, self.loss_parts = defaultdict(float), defaultdict(int), {}
        try:
            yield
        finally:
            self._sums, self._counts, self.loss_parts = kept

    def leave_out_of_clock(self, seconds: float) -> None:
        """Leaves the seconds of an evaluation out of the training time."""
        self._clock += seconds

    def count_tokens(self, tokens: int) -> None:
        """Adds tokens and latents that this device has trained on."""
        self._tokens += tokens

    def count_flops(self, flops: float) -> None:
        """Adds operations that this device has carried out, see `training.flops`."""
        self._flops += flops

    def floating_point_ops(self, inputs: Any) -> int:
        """Returns the operations since the last micro-batch; the Trainer keeps the sum in its state."""
        counted, self._flops = self._flops, 0.0
        return round(counted)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the recorded averages and the seconds since the last line to what the Trainer logs."""
        if "loss" in logs:
            now = time.perf_counter()
            logs["seconds"] = now - self._clock
            self._clock = now
            self._merge_token_counts()
            logs["num_tokens"] = self.state.num_input_tokens_seen
            logs["flops"] = self.state.total_flos
            mine = {name: (float(total), int(self._counts[name])) for name, total in self._sums.items()}
            logs.update(_means(self._from_all(mine)))
            self._sums.clear()
            self._counts.clear()
        super().log(logs, start_time)

    def _merge_token_counts(self) -> None:
        self.state.num_input_tokens_seen += sum(self._from_all(self._tokens))
        self._tokens = 0

    def _from_all(self, value: Any) -> list[Any]:
        """Gathers the value of each process; all processes must call this."""
        return gather_object([value]) if self.args.world_size > 1 else [value]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Makes the optimizer; parts that `learning_rate_factors` names have groups of their own."""
        optimizer = super().create_optimizer(*args, **kwargs)
        give_factors(optimizer, self.model, self.factors, self.args.learning_rate)
        return optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        """Makes the scheduler, whose factor at each optimisation step is `learning_rate_scale`."""
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(cast(Any, optimizer or self.optimizer), self.learning_rate_scale)
        return self.lr_scheduler

    def learning_rate_scale(self, step: int) -> float:
        """Returns the factor on the peak learning rate at optimisation step `step`."""
        scale = decay(str(self.args.lr_scheduler_type), step / max(1, self.args.max_steps))
        warmup = self.args.get_warmup_steps(self.args.max_steps)
        return scale * min(1.0, (step + 1) / (warmup + 1))

    def _get_output_dir(self, trial: Any) -> str:
        return self._output_dir or super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        staging = Path(str(self.args.output_dir)) / STAGING
        if self.is_world_process_zero():
            remove_unfinished(staging.parent)
        self.accelerator.wait_for_everyone()
        self._merge_token_counts()
        self._output_dir = str(staging)
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._output_dir = None
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self._publish(staging)
        self.accelerator.wait_for_everyone()
        self.state.best_model_checkpoint = best_checkpoint(self.args.output_dir, self.state.best_global_step)

    def _publish(self, staging: Path) -> None:
        """Renames what has been written whole, and removes checkpoints beyond `save_total_limit`."""
        for whole in staging.iterdir():
            write_manifest(whole)
            shutil.rmtree(staging.parent / whole.name, ignore_errors=True)
            os.replace(whole, staging.parent / whole.name)
        staging.rmdir()
        rotate_checkpoints(
            output_dir=str(staging.parent),
            save_total_limit=self.args.save_total_limit,
            best_model_checkpoint=best_checkpoint(staging.parent, self.state.best_global_step),
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Writes the whole model, reasoner and step decoder, to `output_dir`."""
        if self.is_deepspeed_enabled:
            super().save_model(output_dir, _internal_call=True)
        else:
            self._save(output_dir or self.args.output_dir, full_state_dict(self))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
            self.model.save_pretrained(str(output_dir), tokenizer, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_deepspeed_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        save_optimizer(cast(Any, self.optimizer), self.model, Path(output_dir), self.args.should_save)
        if self.args.should_save:
            schedule = json.dumps(cast(Any, self.lr_scheduler).state_dict())
            (Path(output_dir) / SCHEDULER_FILE).write_text(schedule, encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        load_optimizer(cast(Any, self.optimizer), self.model, Path(checkpoint))
        schedule = json.loads((Path(checkpoint) / SCHEDULER_FILE).read_text(encoding="utf-8"))
        cast(Any, self.lr_scheduler).load_state_dict(schedule)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_weights(self.model, read_weights(resume_from_checkpoint), resume_from_checkpoint)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        # Only a step that has a checkpoint can be the best one.
        saves = self.args.save_strategy == SaveStrategy.BEST or self.control.should_save
        return saves and super()._determine_best_metric(metrics, trial)

    def _load_best_model(self) -> None:
        best = str(self.state.best_model_checkpoint)
        if self.is_deepspeed_enabled:
            deepspeed_load_checkpoint(self.model_wrapped, best)
        else:
            self._load_from_checkpoint(best)


def _means(parts: Sequence[Mapping[str, tuple[float, int]]]) -> dict[str, float]:
    """Turns the sums and counts of several processes into one average for each name."""
    names = dict.fromkeys(name for part in parts for name in part)
    totals = {name: [part[name] for part in parts if name in part] for name in names}
    return {
        name: sum(total for total, _ in pairs) / count
        for name, pairs in totals.items()
        if (count := sum(number for _, number in pairs))
    }
