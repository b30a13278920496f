"""The settings of a run, one dataclass field each with one help text and one default.

Names are those of transformers and TRL wherever they have the setting. A recipe is a YAML file of these
fields; flags on the command line override it.

What belongs to one objective of RL alone is a setting of its own dataclass (`training.objectives`).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from importlib import import_module
from typing import Any, ClassVar

from transformers import TrainingArguments

from latentplan.common.plugin_settings import PluginKind, plugins_of
from latentplan.common.plugins import import_named, names_own_code, setting
from latentplan.common.secrets import is_secret, masked
from latentplan.methods.base import METHOD, THINKING

logger = logging.getLogger(__name__)

_LOWER_IS_BETTER = ("loss", "tokens", "latents")


@dataclass
class ModelArguments:
    """Which model a run starts from."""

    model_name_or_path: str | None = setting(
        None, "a latentplan model or run, or any causal LM; absent: train from scratch from backbone_config"
    )
    backbone_config: dict | None = setting(
        None, "configuration of a backbone trained from scratch: model_type and its fields"
    )
    tokenizer: str = setting(
        "word_level",
        "kind of the tokenizer trained with a backbone from scratch: word_level or byte_level_bpe",
    )
    vocab_size: int = setting(4096, "entries of a tokenizer trained from scratch, at most")
    dtype: str = setting("float32", "dtype in which a backbone is loaded")
    attn_implementation: str | None = setting(None, "attention implementation of the backbone")
    chat_template: bool = setting(
        False, "lay questions out by the chat template of an instruct model; models trained so keep it"
    )
    system_prompt: str | None = setting(None, "system message of the chat template")
    model_revision: str | None = setting(None, "branch, tag or commit of a model on the hub")
    trust_remote_code: bool = setting(
        False,
        "run code that the starting model names: its own head or method, a kernel of the hub, its tokenizer",
    )
    step_decoder_name_or_path: str | None = setting(
        None,
        "causal LM with the backbone's tokenizer, of any width, to start the step decoder from; absent: a "
        "copy of the backbone",
    )
    freeze_backbone: bool = setting(False, "train the heads and the step decoder only")
    use_peft: bool = setting(False, "train LoRA adapters in the backbone and in the step decoder")
    lora_r: int = setting(16, "rank of the LoRA adapters")
    lora_alpha: int = setting(32, "scale of the LoRA adapters, divided by lora_r")
    lora_dropout: float = setting(0.0, "dropout before the LoRA adapters; GRPO trains without any")
    lora_target_modules: list[str] | None = setting(
        None, "names of the linear maps that get adapters; absent: all but the output layer"
    )


@dataclass(repr=False)  # that of TrainingArguments masks secrets
class RunConfig(TrainingArguments):
    """What every kind of run has in addition to transformers' `TrainingArguments`.

    Attributes:
        plugin_kinds: the settings that name plug-ins with settings of their own.
    """

    plugin_kinds: ClassVar[tuple[PluginKind, ...]] = ()

    output_dir: str | None = setting("runs/run", "the run directory")
    logging_steps: float = setting(20, "optimisation steps between two lines of metrics")
    save_steps: float = setting(200, "optimisation steps between two checkpoints")
    save_total_limit: int | None = setting(2, "checkpoints kept")
    learning_rate: float = setting(1e-4, "peak learning rate")
    weight_decay: float = setting(0.0, "AdamW's weight decay")
    learning_rate_factors: dict | None = setting(
        None,
        "learning rates of parts, as factors: {latent_head: 3, stop_head: 0.1}; of backbone, latent_head, "
        "stop_head and, supervised, step_decoder; 0 leaves a part as it is",
    )
    effective_batch_size: int | None = setting(
        None,
        "rows (sft) or trajectories (grpo) of one optimisation step over all devices; "
        "gradient_accumulation_steps then follows from it and from the number of devices",
    )
    overwrite_output_dir: bool = setting(False, "delete an earlier run in output_dir and start again")
    torch_threads: int | None = setting(None, "CPU threads of this process; absent: torch's choice")
    remove_unused_columns: bool = setting(False, "columns are laid out by the method, not by the Trainer")
    eval_dataset_name: list[str] = setting(
        [], "validation problems, in the forms of dataset_name; absent: minigsm's, where it is trained on"
    )
    eval_dataset_split: str = setting("validation", "split of hub benchmarks in eval_dataset_name")
    eval_dataset_size: int = setting(256, "validation problems of each data set at most")
    per_device_eval_batch_size: int = setting(64, "validation problems at a time on each device")
    on_nonfinite: str = setting(
        "stop", "on a NaN or Inf in loss or gradient: stop, the batch being saved, or skip the update"
    )
    check_saving: bool = setting(
        True,
        "compare what is saved with what is trained: once before the first step, which takes as long as two "
        "checkpoints, and at the end before checkpoints are deleted",
    )
    disable_tqdm: bool | None = setting(False, "show no progress")
    logging_nan_inf_filter: bool = setting(False, "the guard of on_nonfinite does this")
    report_to: None | str | list[str] = setting(  # noqa: RUF036 (HfArgumentParser wants None first)
        "tensorboard", "trackers, such as tensorboard, wandb or trackio; none for metrics.jsonl alone"
    )

    def __post_init__(self) -> None:
        metric = (self.metric_for_best_model or "").removeprefix("eval_")
        if self.greater_is_better is None and metric.split("/")[0] in _LOWER_IS_BETTER:
            self.greater_is_better = False
        super().__post_init__()
        if super().n_gpu > 1:
            logger.warning(
                "%d GPUs are visible and one is used: add --accelerate_config ddp to use all, or choose one "
                "with CUDA_VISIBLE_DEVICES",
                super().n_gpu,
            )
        if self.effective_batch_size is not None:
            self.gradient_accumulation_steps = _accumulation(self, self.effective_batch_size)

    def to_dict(self) -> dict[str, Any]:
        """All settings as they are saved and sent to trackers, with secrets masked."""
        values = super().to_dict()
        return masked({name: getattr(self, name) if is_secret(name) else values[name] for name in values})

    def flat(self) -> dict[str, Any]:
        """Returns `to_dict` with the own settings of the chosen plug-ins by their names, defaults included.

        Raises:
            ValueError: a plug-in does not exist, or its settings are wrong.
        """
        values = self.to_dict()
        for plugin in plugins_of([type(self)], vars(self)):
            if plugin.names:
                values |= plugin.read(values.pop(plugin.stored_in) or {})
        return masked(values)

    @property
    def n_gpu(self) -> int:
        """GPUs of this process, one at most.

        With several the Trainer would cut batches apart for `nn.DataParallel`, whose rows belong together.
        """
        return min(1, super().n_gpu)


@dataclass(repr=False)
class SFTConfig(RunConfig):
    """The supervised stage."""

    plugin_kinds: ClassVar[tuple[PluginKind, ...]] = (METHOD, THINKING)

    method: str = setting(
        "atp_latent",
        "method to train: a name in docs/methods.md, or a class of yours, package.module:Class",
    )
    method_settings: dict | None = setting(
        None, "the method's own settings as one mapping; in recipes and flags each is a setting of its own"
    )
    objectives: dict | None = setting(None, "weight of each objective; absent: the method's own")
    latent_head: str | None = setting(
        None, "where latents come from, a head in docs/methods.md; absent: the method's own"
    )
    stop_head: bool | None = setting(None, "whether a stop head ends the latents; absent: the method's own")
    thinking: str | None = setting(
        None,
        "how latents follow from hidden states: sequential, or a process of yours, package.module:Class; "
        "absent: the method's own",
    )
    thinking_settings: dict | None = setting(
        None, "the process's own settings as one mapping, such as {iterations: 3} of pccot"
    )
    latents_per_step: int = setting(2, "latent tokens for one reasoning step (c)")
    max_latent_steps: int = setting(10, "latent steps at most (K); icot: tokens at which no step is left")
    initial_latent_scale: float = setting(
        1.0, "root mean square of μ when training starts; colar: in units of the embeddings"
    )
    initial_log_variance: float = setting(-4.0, "log σ² of the Gaussian head when training starts")
    step_separator: str = setting("\n", "text between written steps")
    answer_marker: str = setting("### ", "text before the answer")
    curriculum_stages: list[int] | None = setting(
        None, "the stages in order (0: all steps are text); absent: 1 to K for latent methods"
    )
    curriculum_steps: list[int] | None = setting(
        None, "optimisation steps of each stage; one number serves all; absent: curriculum_epochs, or 1000"
    )
    curriculum_epochs: list[float] | None = setting(
        None,
        "instead of curriculum_steps: passes over the training problems in each stage; one number serves all",
    )
    reset_optimizer: bool = setting(True, "forget the optimizer's moments at the start of each stage")
    stage_warmup_steps: int = setting(0, "optimisation steps of linear warm-up at the start of each stage")
    decay_stages: int = setting(
        1, "the learning rate decays, as lr_scheduler_type says, over this many last stages"
    )
    lr_scheduler_type: str = setting("cosine", "shape of the decay: constant, linear or cosine")
    compression_factor: InitVar[int | None] = None  # before it became a setting of its method

    def __post_init__(self, compression_factor: int | None) -> None:  # type: ignore[override]
        if compression_factor is not None:
            warnings.warn(
                "SFTConfig(compression_factor=...) is now method_settings={'compression_factor': ...}",
                FutureWarning,
                stacklevel=3,
            )
            self.method_settings = {"compression_factor": compression_factor, **(self.method_settings or {})}
        super().__post_init__()


def _objectives() -> Any:
    """The package of objectives, which reads this module."""
    return import_module("latentplan.training.objectives")


OBJECTIVE = PluginKind(
    setting="objective",
    chosen=lambda settings: (
        settings["objective"],
        _objectives().get_objective(settings["objective"]).settings_class,
    ),
    shipped=lambda: {name: found.settings_class for name, found in _objectives().objectives().items()},
)
"""The setting `objective`, whose value has settings of its own."""


@dataclass(repr=False)
class GRPOConfig(RunConfig):
    """The RL stage. Batch sizes count trajectories, as in TRL."""

    plugin_kinds: ClassVar[tuple[PluginKind, ...]] = (OBJECTIVE,)

    max_steps: int = setting(100, "optimisation steps")
    learning_rate: float = setting(1e-6, "peak learning rate")
    lr_scheduler_type: str = setting("constant", "shape of the learning rate: constant, linear or cosine")
    per_device_train_batch_size: int = setting(16, "trajectories of one forward pass per device")
    num_generations: int = setting(8, "trajectories of one question (G)")
    answers_per_latent: int = setting(
        1, "answers sampled from each chain of latents; divides num_generations"
    )
    steps_per_generation: int | None = setting(
        None, "minibatches that one rollout is split into; absent: gradient_accumulation_steps"
    )
    num_iterations: int = setting(1, "passes over each rollout")
    objective: str = setting(
        "grpo", "the algorithm: a name in docs/rl.md, or a class of yours, package.module:Class"
    )
    objective_settings: dict | None = setting(
        None,
        "in Python the objective's own settings, {name: value}; in recipes and flags each stands for itself",
    )
    latent_gradient: str | None = setting(
        None,
        "how gradients reach latents: score_function (paper), pathwise, none (answer tokens only), or a "
        "class of yours, package.module:Class; absent: the objective's own, for grpo score_function",
    )
    latent_logprob: str = setting(
        "sum", "log-probability of a latent over dimensions: sum (paper) or mean (CoLaR)"
    )
    temperature: float = setting(1.0, "temperature of answer tokens and of the stop head")
    latent_temperature: float = setting(1.0, "scale of σ when latents are sampled; 0 uses μ")
    plan_temperature: float = setting(
        0.0,
        "above 0, plans are drawn from the step decoder at this temperature, and their tokens are actions "
        "that teach the latents (latent_gradient pathwise); 0 decodes them greedily",
    )
    max_completion_length: int = setting(64, "answer tokens at most")
    reward_funcs: list[str] | None = setting(
        None,
        "rewards, by name or package.module:function; absent: the paper's, accuracy + 0.5 format + "
        "0.1 coherence_strict_if_correct",
    )
    reward_weights: list[float] | None = setting(
        None, "weight of each reward in reward_funcs; absent: 1 each"
    )
    reward_settings: dict | None = setting(
        None, "settings of rewards that have some, by name: {valid_chains: {order: false}}"
    )
    beta: float = setting(0.0, "weight of the KL divergence to the starting policy")
    use_bias_correction_kl: bool = setting(
        False, "multiply the KL estimate of an answer token by its ratio (DeepSeek-V3.2); needs beta"
    )
    epsilon: float = setting(0.2, "lower clipping range of the ratio")
    epsilon_high: float | None = setting(None, "upper clipping range; absent: epsilon")
    max_log_ratio: float = setting(3.0, "the log-ratio is clamped to ± this")
    scale_rewards: str = setting(
        "group",
        "what the advantage is divided by: the standard deviation of group or batch, none, or a function of "
        "yours, package.module:function",
    )
    baseline: str = setting(
        "group",
        "what is subtracted from a reward: the group's mean, leave_one_out (the mean of the others), none, "
        "or a function of yours, package.module:function",
    )
    mask_invalid_samples: bool = setting(
        False, "trajectories that did not end enter no group's mean and get no advantage (Latent-GRPO)"
    )
    filter_groups: bool = setting(
        False, "the loss is the mean over groups whose rewards differ, not over all (DAPO)"
    )
    first_slot_of_best: bool = setting(
        False,
        "of a question's better chains only the likeliest moves the first latent (Latent-GRPO); for "
        "latent_gradient score_function",
    )
    signal_problems: int = setting(
        256,
        "problems, half against half, on which the signal in the gradient is measured before RL and at each "
        "evaluation; 0 leaves it out",
    )
    loss_type: str = setting(
        "dapo",
        "how per-action losses are averaged: dapo (over all actions of a rollout), grpo (in each trajectory "
        "first), bnpo (over all of a minibatch), dr_grpo (constant divisor), or a function of yours, "
        "package.module:function",
    )
    mask_truncated_completions: bool = setting(False, "leave answers that did not finish out of the loss")
    log_completions: bool = setting(
        False, "write sampled trajectories to samples.jsonl at every logging step"
    )


def _accumulation(config: RunConfig, effective_batch: int) -> int:
    """Micro-batches of an optimisation step on each device. Raises ValueError if that is no whole number."""
    at_once = config.train_batch_size * config.world_size
    if effective_batch < 1 or effective_batch % at_once:
        raise ValueError(
            f"effective_batch_size={effective_batch} must be a multiple of per_device_train_batch_size times "
            f"the number of devices, {config.train_batch_size} x {config.world_size} = {at_once}: "
            "change per_device_train_batch_size"
        )
    return effective_batch // at_once


def flatten_recipe(arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Returns the resolved settings of parsed dataclasses as one flat, YAML-friendly mapping, secrets masked.

    Raises:
        ValueError: a plug-in does not exist, or its own settings are wrong.
    """
    resolved: dict[str, Any] = {}
    for argument in arguments:
        resolved.update(argument.flat() if isinstance(argument, RunConfig) else masked(vars(argument)))
    return resolved


def choose(setting: str, table: Mapping[str, Any], name: str) -> Any:
    """Returns the entry `name` of `table`. Raises ValueError that lists the names where there is none."""
    if name not in table:
        raise ValueError(f"{setting} must be one of {sorted(table)}, got {name!r}")
    return table[name]


def plug_in(setting: str, table: Mapping[str, Any], name: str) -> Any:
    """Returns the entry `name` of `table`, or the user's own function, named `package.module:function`.

    Raises:
        ValueError: there is no such name, module or function; the message lists what there is.
    """
    if name in table:
        return table[name]
    found = import_named(name, setting, source=None) if names_own_code(name) else None
    if not callable(found):
        raise ValueError(
            f"{setting} must be one of {sorted(table)}, or a function of yours as "
            f"'package.module:function', got {name!r}"
        )
    return found
