"""Evaluation while a model trains, and the checkpoint that was best at it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback, TrainerCallback
from transformers.integrations.deepspeed import deepspeed_load_checkpoint
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy

from latentplan.methods.system import LatentSystem
from latentplan.modeling.loading import LoadedModel, encoder_of
from latentplan.rollout.solve import Solution
from latentplan.training.checkpoints import damage
from latentplan.training.guard import GuardedTrainer
from latentplan.training.progress import ProgressDisplay
from latentplan.training.sharding import whole_weights
from latentplan.training.trackers import RunTensorBoard, log_samples
from latentplan.training.validation import MAX_NEW_TOKENS, Sums, ValidationSet, means_of, rollout_sums

logger = logging.getLogger(__name__)
SHOWN_SAMPLES = 8
"""Solutions of validation problems that are written to samples.jsonl at each evaluation."""


class WatchedTrainer(GuardedTrainer):
    """`Trainer` with our progress display, and TensorBoard in the run directory."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for shown in (ProgressCallback, PrinterCallback):
            self.remove_callback(shown)
        if self.pop_callback(TensorBoardCallback) is not None:
            self.add_callback(RunTensorBoard(str(self.args.output_dir)))
        self.progress = ProgressDisplay(disabled=bool(self.args.disable_tqdm))
        self.add_callback(self.progress)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains, and gives the terminal back however it ends."""
        try:
            return super().train(*args, **kwargs)
        finally:
            self.progress.close()

    def write_samples(self, tag: str, rows: Sequence[dict[str, Any]]) -> None:
        """Appends rows to samples.jsonl, on the first process, and sends them to the trackers."""
        if not self.args.should_save:
            return
        with (Path(str(self.args.output_dir)) / "samples.jsonl").open("a") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        log_samples(self.callback_handler.callbacks, tag, rows, self.state.global_step)


class EvaluatingTrainer(WatchedTrainer):
    """`Trainer` that evaluates on validation problems, by rollouts, wherever its settings ask for it.

    The result does not depend on batch size or number of processes, and evaluating changes nothing of the
    training.

    Args:
        validation: the problems, or None.
        args, kwargs: as for `Trainer`.

    Raises:
        ValueError: `metric_for_best_model` is not among what is measured.
    """

    model: LatentSystem

    def __init__(self, *args: Any, validation: ValidationSet | None = None, **kwargs: Any):
        self.validation = validation
        super().__init__(*args, eval_dataset=validation, **kwargs)
        self.add_callback(_KnownBest())
        best = self.args.metric_for_best_model
        if validation is not None and best is not None and best.removeprefix("eval_") not in self.measures():
            raise ValueError(
                f"metric_for_best_model must be one of {', '.join(self.measures())}, got {best!r}"
            )

    def loaded_model(self) -> LoadedModel:
        """The model that is trained, as rollouts want it."""
        tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
        reasoner = self.model.reasoner
        return LoadedModel(
            reasoner, self.model.step_decoder, tokenizer, encoder_of(reasoner.config, tokenizer)
        )

    def objective_means(self, places: range) -> dict[str, float]:
        """Further measures on the problems at `places`, already over all processes."""
        return {}

    def current_stage(self) -> int | None:
        """The stage of the curriculum that the weights have been trained at; None without one."""
        return None

    def max_new_tokens(self) -> int:
        """Text tokens of a validation rollout."""
        return MAX_NEW_TOKENS

    def measures(self) -> list[str]:
        """What `metric_for_best_model` may be."""
        config = self.model.reasoner.config
        plans = ["coherence"] if self.model.step_decoder is not None or config.written_steps else []
        latents = ["latents"] if config.num_slots else []
        read = ["reconstruction"] if latents and self.model.step_decoder is not None else []
        return ["accuracy", "tokens", *latents, *plans, *read]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Greedy rollouts of the validation problems, and whatever `objective_means` adds, as `eval_NAME`.

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

    def leave_out_of_clock(self, seconds: float) -> None:
        """Has the seconds of an evaluation not count as training."""

    def _measure(self, validation: ValidationSet) -> dict[str, float]:
        places = validation.part(self.args.process_index, self.args.world_size)
        problems = [validation.problems[place] for place in places]
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
        return {**self.objective_means(places), **means_of(self.everywhere(sums))}

    def everywhere(self, sums: Sums) -> Sums:
        """Sums and counts added over all processes."""
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


class _KnownBest(TrainerCallback):
    """Finds the best checkpoint again when a run goes on, also if its folder has been moved."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forgets the best checkpoint if it is gone or damaged: the run could not end with it."""
        best = best_checkpoint(args.output_dir, state.best_global_step)
        reason = None if best is None else damage(Path(best))
        if reason is not None:
            logger.warning(
                "%s was the best and is damaged (%s): the best of the others is taken", best, reason
            )
            best = None
        state.best_model_checkpoint = best
        if best is None:
            state.best_global_step = state.best_metric = None


def best_checkpoint(output_dir: Any, step: int | None) -> str | None:
    """The checkpoint of a step, if there is one."""
    folder = Path(str(output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{step}"
    return str(folder) if step is not None and folder.is_dir() else None
