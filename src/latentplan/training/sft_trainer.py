"""The supervised stage: a method's objectives through the stages of its curriculum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase, TrainerCallback

from latentplan.encoding.curriculum import Curriculum
from latentplan.encoding.processor import Batch, EncodedProblem, ProblemProcessor
from latentplan.methods.base import get_method
from latentplan.training.configs import SFTConfig
from latentplan.training.parameter_groups import check_loss, decay
from latentplan.training.samplers import PlacedProblems, PlanSampler, StageCollator
from latentplan.training.trainable_model import LatentModelForTraining
from latentplan.training.trainer import LatentTrainer
from latentplan.training.validation import ValidationSet, validation_batches


def make_curriculum(config: SFTConfig, num_problems: int | None = None) -> Curriculum:
    """The stages of a configuration: as listed, or those of its method.

    Raises:
        ValueError: stages and durations do not fit together, or epochs are asked for without `num_problems`.
    """
    method, stages = get_method(config.method), config.curriculum_stages
    if stages is None:
        stages = method.stages(config.max_latent_steps)
    if method.has_latents and max(stages, default=0) > config.max_latent_steps:
        raise ValueError(
            f"curriculum_stages {stages} go beyond max_latent_steps={config.max_latent_steps}, "
            "the most latent steps that the model has"
        )
    steps = _stage_steps(config, num_problems)
    if len(steps) == 1:
        steps = steps * len(stages)
    return Curriculum(tuple(stages), tuple(steps))


def _stage_steps(config: SFTConfig, num_problems: int | None) -> list[int]:
    """Optimisation steps of each stage, from `curriculum_steps` or from epochs and the effective batch."""
    if config.curriculum_epochs is None:
        return config.curriculum_steps or [1000]
    if config.curriculum_steps is not None:
        raise ValueError("curriculum_steps and curriculum_epochs exclude each other: set one of them")
    if num_problems is None:
        raise ValueError("curriculum_epochs needs to know how many problems there are: set curriculum_steps")
    batch = config.train_batch_size * config.gradient_accumulation_steps * config.world_size
    return [max(1, round(epochs * num_problems / batch)) for epochs in config.curriculum_epochs]


class ResetOptimizer(TrainerCallback):
    """Forgets the optimizer's moments when a stage begins (Coconut, ATP-Latent)."""

    def __init__(self, curriculum: Curriculum):
        self.starts = set(curriculum.starts[1:])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """At the first optimisation step of a stage, clears the optimizer's state."""
        if state.global_step in self.starts:
            optimizer = kwargs["optimizer"]
            getattr(optimizer, "optimizer", optimizer).state.clear()


class SFTTrainer(LatentTrainer):
    """Trains a `LatentModelForTraining` on encoded problems.

    Args:
        system: the reasoner, decoder and objectives.
        config: the settings.
        encoded: the training problems.
        processor: the processor that made them.
        tokenizer: saved with every checkpoint.
        curriculum: stages and durations; it decides the length of the run.
        validation: held-out problems, where the settings ask for evaluations.
    """

    args: SFTConfig

    def __init__(
        self,
        system: LatentModelForTraining,
        config: SFTConfig,
        encoded: Sequence[EncodedProblem],
        processor: ProblemProcessor,
        tokenizer: PreTrainedTokenizerBase,
        curriculum: Curriculum,
        callbacks: Sequence[TrainerCallback] = (),
        validation: ValidationSet | None = None,
    ):
        config.max_steps = curriculum.total_steps
        self.curriculum, self.num_problems, self.processor = curriculum, len(encoded), processor
        resets = [ResetOptimizer(curriculum)] if config.reset_optimizer else []
        super().__init__(
            model=system,
            args=config,
            train_dataset=PlacedProblems(encoded),
            data_collator=StageCollator(processor, system.method, system.reasoner.config, config.seed),
            processing_class=tokenizer,
            callbacks=[*callbacks, *resets],
            validation=validation,
        )

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        effective = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return PlanSampler(self.num_problems, self.curriculum, effective, self.args.seed)

    def get_batch_samples(  # type: ignore[override]
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, dict[str, torch.Tensor] | None]:
        """Returns the micro-batches of an optimisation step, and the numbers of items on all devices."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        num_items: dict[str, torch.Tensor] = {}
        for batch in batches:
            for name, number in self.model.num_items(batch).items():
                num_items[name] = num_items[name] + number if name in num_items else number
        if self.args.world_size > 1:
            num_items = {
                name: self.accelerator.reduce(number.to(device), reduction="sum")
                for name, number in num_items.items()
            }
        return batches, num_items or None

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's share of the loss of the effective batch."""
        self._count(inputs)
        outputs = model(num_items=num_items_in_batch, **inputs)
        loss = outputs.pop("loss")
        passes = self.current_gradient_accumulation_steps
        self.record(
            stage=self.curriculum.stage(self.state.global_step),
            **{name: value * passes * self.args.world_size for name, value in outputs.items()},
        )
        # The Trainer divides by the number of micro-batches, and DDP by the number of devices.
        loss = loss * passes * self.args.world_size
        check_loss(loss)
        self.watch_loss(inputs, loss)
        return (loss, outputs) if return_outputs else loss

    def _count(self, batch: Batch) -> None:
        self.count_tokens(sum(int(value.sum()) for name, value in batch.items() if name.endswith("_mask")))
        rows, slots = batch["slot_mask"].shape
        reasoner = self.model.reasoner
        drafts = rows * reasoner.thinking.draft_columns(slots, reasoner.config.latents_per_step)
        self.count_flops((self.model.method.tokens_read(batch) + drafts) * self.reasoner_flops.training)
        if "step_decoder" in self.model.weights:
            latents = len(batch["step_row"]) * (self.model.reasoner.config.latents_per_step - 1)
            self.count_flops((latents + len(batch["step_label_indices"])) * self.decoder_flops.training)

    def current_stage(self) -> int:
        """The stage of the last optimisation step."""
        return self.curriculum.stage(max(0, self.state.global_step - 1))

    def measures(self) -> list[str]:
        """The objectives too."""
        return ["loss", *(f"loss/{name}" for name in self.model.weights), *super().measures()]

    def objective_means(self, indices: range) -> dict[str, float]:
        """Returns the objectives on the problems at `indices`, as if all problems were one batch."""
        assert self.validation is not None
        device = self.args.device
        batches = validation_batches(
            self.model,
            self.processor,
            self.validation,
            indices,
            stage=self.current_stage(),
            seed=self.args.seed,
            batch_size=self.args.per_device_eval_batch_size,
        )
        num_items = self._add_up([self.model.num_items(batch) for batch in batches])
        shares = self._add_up(
            [
                self.model(num_items=num_items, **{name: value.to(device) for name, value in batch.items()})
                for batch in batches
            ]
        )
        return {name: float(value) for name, value in shares.items()}

    def _add_up(self, parts: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Sums by name, over all batches and devices."""
        total: dict[str, torch.Tensor] = {}
        for name in parts[0]:
            total[name] = torch.stack([part[name].to(self.args.device) for part in parts]).sum(dim=0)
            if self.args.world_size > 1:
                total[name] = self.accelerator.reduce(total[name], reduction="sum")
        return total

    def learning_rate_scale(self, step: int) -> float:
        """Warm-up at the start of each stage, decay over the last `decay_stages` stages."""
        starts, total = self.curriculum.starts, self.curriculum.total_steps
        into_stage = step - starts[self.curriculum.phase(step)]
        decay_start = starts[-min(self.args.decay_stages, len(starts))] if self.args.decay_stages else total
        progress = max(0.0, (step - decay_start) / max(1, total - decay_start))
        warmup = min(1.0, (into_stage + 1) / (self.args.stage_warmup_steps + 1))
        return warmup * decay(str(self.args.lr_scheduler_type), progress)
