"""`Method`: which parts the model has, how a problem is laid out, and which objectives train the model.

A method is found by its name: one of this folder, in a file of its own, or the user's own as
`package.module:Class`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel

from latentplan.common.plugin_settings import NoSettings, PluginKind
from latentplan.common.plugins import (
    CodeSource,
    import_named,
    modules_of,
    names_own_code,
    setting,
    settings_from,
)
from latentplan.encoding.processor import Batch, EncodedProblem, ProblemProcessor, Row, collate
from latentplan.methods.losses import OBJECTIVES, ForwardPass, Objective
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.thinking import process_class, read_text, unroll


class Method:
    """A method with its defaults; a new method overrides what differs.

    Args:
        settings: an instance of `settings_class`; the defaults where it is None.

    Attributes:
        name: what a recipe calls it.
        settings_class: the dataclass of its own settings, with fields made by `common.plugins.setting`.
            Recipes and flags name each by itself, and the model's configuration saves them.
        latent_head: a name in `modeling.latent_heads.LATENT_HEADS`, or None without latents.
        thinking: the process that turns hidden states into latents: a name in
            `modeling.thinking.THINKING_PROCESSES`, or `package.module:Class`.
        stop_head: whether a stop head ends the chain of latents.
        written_steps: whether the model writes an explicit chain of thought before the answer.
        objectives: the default weight of each objective.
        own_objectives: objectives that this method can be trained by, in addition to `losses.OBJECTIVES`.
    """

    name: ClassVar[str]
    settings_class: ClassVar[type] = NoSettings
    latent_head: ClassVar[str | None] = None
    thinking: ClassVar[str] = "sequential"
    stop_head: ClassVar[bool] = False
    written_steps: ClassVar[bool] = False
    objectives: ClassVar[dict[str, float]] = {"text": 1.0}
    own_objectives: ClassVar[dict[str, Objective]] = {}

    def __init__(self, settings: Any = None):
        self.settings = self.settings_class() if settings is None else settings

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if vars(cls).get("compression_factor") is not None:
            _convert_compression_factor(cls)

    @property
    def has_latents(self) -> bool:
        """Whether its models reason in latents where a recipe names no other head."""
        return self.latent_head is not None

    @property
    def tokens_per_latent(self) -> int | None:
        """How many tokens of the chain of thought a latent stands for at most; None where it is no number."""
        return None

    @property
    def all_objectives(self) -> Mapping[str, Objective]:
        """Lists every objective that a recipe can give a weight, by name."""
        return {**OBJECTIVES, **self.own_objectives}

    def stages(self, max_latent_steps: int) -> list[int]:
        """Returns the curriculum's stages where a recipe lists none: 1 to K with latents, else 0."""
        return list(range(1, max_latent_steps + 1)) if self.has_latents else [0]

    def longest_stage(self, max_latent_steps: int) -> int:
        """Returns the stage that takes the most memory: the last, in which every slot is in use."""
        return self.stages(max_latent_steps)[-1]

    def latent_scale(self, initial_latent_scale: float, backbone: PreTrainedModel) -> float:
        """Returns the root mean square of latents in a new model on `backbone`: as the recipe says."""
        return initial_latent_scale

    def batch(
        self,
        processor: ProblemProcessor,
        problems: Sequence[EncodedProblem],
        stages: Sequence[int],
        config: LatentReasonerConfig,
        keys: torch.Tensor,
    ) -> Batch:
        """Lays problems out at their stages, which all have equally many slots, and collates them.

        Args:
            processor: that encoded the problems.
            problems: one for each row.
            stages: the curriculum stage of each row.
            config: of the model.
            keys: `[rows]`, from which all random choices of a row are derived.

        Returns:
            The tensors of `encoding.processor.collate`.
        """
        rows = [
            self.layout(processor, problem, stage, config, key)
            for problem, stage, key in zip(problems, stages, keys.tolist(), strict=True)
        ]
        return collate(rows, keys, config.pad_token_id or 0)

    def layout(
        self,
        processor: ProblemProcessor,
        encoded: EncodedProblem,
        stage: int,
        config: LatentReasonerConfig,
        key: int,
    ) -> Row:
        """Lays a problem out at a curriculum stage: the latent slots, then the steps that are still text.

        Args:
            processor: that encoded the problem.
            encoded: the problem.
            stage: of the curriculum.
            config: of the model.
            key: from which all random choices are derived.
        """
        return processor.row(
            encoded,
            stage=stage,
            max_latent_steps=config.max_latent_steps,
            latents_per_step=config.latents_per_step,
            fixed=not config.stop_head,
        )

    def tokens_read(self, batch: Batch) -> int:
        """Counts the positions that the reasoner reads in a training pass over `batch`, without padding."""
        return sum(int(value.sum()) for name, value in batch.items() if name.endswith("_mask"))

    def latents_read(self, forward: ForwardPass) -> torch.Tensor | None:
        """Returns the latents `[batch, slots, hidden]` that training read; None means those of the chain."""
        return None

    def forward(self, reasoner: LatentReasoner, batch: Batch) -> ForwardPass:
        """Reads the question, draws the latents by the thinking process, and reads the text in one pass."""
        state = reasoner.start(batch["question_ids"], batch["question_mask"])
        chain = unroll(reasoner, state, batch["slot_mask"], batch["noise_keys"])
        hidden = read_text(state, reasoner.embed(batch["text_ids"]), batch["text_mask"])
        return ForwardPass(chain=chain, text_hidden=hidden)


def _convert_compression_factor(method: type[Method]) -> None:
    """Turns the class attribute `compression_factor` of a method, as in earlier versions, into a setting."""
    warnings.warn(
        f"{method.__name__}: the class attribute compression_factor is now a setting in settings_class, and "
        "the property tokens_per_latent says that latents stand for tokens",
        FutureWarning,
        stacklevel=3,
    )
    factor = setting(vars(method)["compression_factor"], "tokens that one latent stands for at most")
    own = [("compression_factor", int, factor)]
    method.settings_class = make_dataclass(
        f"{method.__name__}Settings", own, bases=(method.settings_class,), frozen=True
    )
    method.tokens_per_latent = property(  # type: ignore[assignment, method-assign]
        lambda self: self.settings.compression_factor
    )


def _methods_of(module: object) -> list[type[Method]]:
    return [
        found
        for found in vars(module).values()
        if isinstance(found, type)
        and issubclass(found, Method)
        and "name" in vars(found)
        and found.__module__ == module.__name__  # type: ignore[attr-defined]
    ]


@cache
def methods() -> dict[str, Method]:
    """Finds the methods of this folder; returns each by name, with the defaults of its settings."""
    found = [each for module in modules_of("latentplan.methods") for each in _methods_of(module)]
    return {method.name: method() for method in found}


def method_class(name: str, source: CodeSource | None = None) -> type[Method]:
    """Finds the class of the method called `name`: one of `methods`, or `package.module:Class`.

    Args:
        name: of the method.
        source: the checkpoint that names it; None where the user does.

    Raises:
        UntrustedCodeError: a checkpoint names code, and is not trusted.
        ValueError: there is no such name, module or class; the message lists what there is.
    """
    if name in methods():
        return type(methods()[name])
    found = import_named(name, "method", source) if names_own_code(name) else None
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(
            f"method must be one of {sorted(methods())}, or a subclass of Method as 'package.module:Class', "
            f"got {name!r}"
        )
    return found


def get_method(
    name: str, source: CodeSource | None = None, settings: Mapping[str, Any] | None = None
) -> Method:
    """Makes the method called `name`.

    Args:
        name: of the method.
        source: the checkpoint that names it; None where the user does.
        settings: its own settings; those that are absent have their defaults.

    Raises:
        UntrustedCodeError: a checkpoint names code, and is not trusted.
        ValueError: there is no such method, it has no such setting, or a value is wrong.
    """
    found = method_class(name, source)
    return found(settings_from(found.settings_class, settings, f"method {name}"))


METHOD = PluginKind(
    setting="method",
    chosen=lambda settings: (settings["method"], method_class(settings["method"]).settings_class),
    shipped=lambda: {name: method.settings_class for name, method in methods().items()},
)
"""The setting `method`, whose value has settings of its own."""


def _thinking(settings: Mapping[str, Any]) -> tuple[str, type]:
    name = settings["thinking"] or method_class(settings["method"]).thinking
    return name, process_class(name).settings_class


THINKING = PluginKind(
    setting="thinking",
    chosen=_thinking,
    shipped=lambda: {
        method.thinking: process_class(method.thinking).settings_class for method in methods().values()
    },
)
"""The setting `thinking`, absent the method's, whose value has settings of its own."""
