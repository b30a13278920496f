"""What a method is: which parts the model has, how a problem is laid out, and which objectives train it.

The methods by name: those in this folder, one file each, and the user's own as `package.module:Class`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from latentplan.common.plugins import CodeSource, import_named, modules_of, names_own_code
from latentplan.encoding.processor import Batch, EncodedProblem, ProblemProcessor, Row, collate
from latentplan.methods.losses import OBJECTIVES, ForwardPass, Objective
from latentplan.modeling.configuration import LatentReasonerConfig
from latentplan.modeling.reasoner import LatentReasoner
from latentplan.modeling.thinking import read_text, unroll


class Method:
    """A latent method with its defaults; a new method overrides what differs.

    Attributes:
        name: what a recipe calls it.
        latent_head: a name in `modeling.latent_heads.LATENT_HEADS`, or None without latents.
        thinking: how latents follow from hidden states: a name in `modeling.thinking.THINKING_PROCESSES`, or
            `package.module:Class`.
        stop_head: whether a stop head ends the chain of latents.
        written_steps: whether the model writes its steps before the answer.
        compression_factor: tokens of the chain that a latent stands for at most, where it stands for no step.
        objectives: the default weight of each objective.
        own_objectives: objectives beside those in `objectives.OBJECTIVES` that this method can be trained by.
    """

    name: ClassVar[str]
    latent_head: ClassVar[str | None] = None
    thinking: ClassVar[str] = "sequential"
    stop_head: ClassVar[bool] = False
    written_steps: ClassVar[bool] = False
    compression_factor: ClassVar[int | None] = None
    objectives: ClassVar[dict[str, float]] = {"text": 1.0}
    own_objectives: ClassVar[dict[str, Objective]] = {}

    @property
    def all_objectives(self) -> Mapping[str, Objective]:
        """Every objective that a recipe can give a weight, by name."""
        return {**OBJECTIVES, **self.own_objectives}

    def stages(self, max_latent_steps: int) -> list[int]:
        """The stages of its curriculum where a recipe lists none: 1 to K with latents, else text alone."""
        return list(range(1, max_latent_steps + 1)) if self.latent_head else [0]

    def longest_stage(self, max_latent_steps: int) -> int:
        """The stage that takes the most memory: the last, in which every slot is in use."""
        return self.stages(max_latent_steps)[-1]

    def latent_scale(self, initial_latent_scale: float, backbone: PreTrainedModel) -> float:
        """The size that latents start with in a new model on `backbone`: as the recipe says."""
        return initial_latent_scale

    def batch(
        self,
        processor: ProblemProcessor,
        problems: Sequence[EncodedProblem],
        stages: Sequence[int],
        config: LatentReasonerConfig,
        keys: torch.Tensor,
    ) -> Batch:
        """Problems laid out at their stages, which all have equally many slots, as one batch.

        Args:
            processor: what the problems were encoded with.
            problems: the rows.
            stages: the curriculum stage of each row.
            config: of the model.
            keys: `[rows]`, what all random choices of a row follow from.
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
        """A problem's row at a curriculum stage: the slots of the stage, then what is still text."""
        return processor.row(
            encoded,
            stage=stage,
            max_latent_steps=config.max_latent_steps,
            latents_per_step=config.latents_per_step,
            fixed=not config.stop_head,
        )

    def tokens_read(self, batch: Batch) -> int:
        """Positions that the reasoner reads in a training pass over `batch`, padding left out."""
        return sum(int(value.sum()) for name, value in batch.items() if name.endswith("_mask"))

    def latents_read(self, forward: ForwardPass) -> torch.Tensor | None:
        """Returns the latents `[batch, slots, hidden]` that training read; None: the chain's own."""
        return None

    def forward(self, reasoner: LatentReasoner, batch: Batch) -> ForwardPass:
        """Question, slots one after another, then the text after them in parallel."""
        state = reasoner.start(batch["question_ids"], batch["question_mask"])
        chain = unroll(reasoner, state, batch["slot_mask"], batch["noise_keys"])
        hidden = read_text(state, reasoner.embed(batch["text_ids"]), batch["text_mask"])
        return ForwardPass(chain=chain, text_hidden=hidden)


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
    """Returns the methods of this folder by name."""
    found = [each for module in modules_of("latentplan.methods") for each in _methods_of(module)]
    return {method.name: method() for method in found}


def get_method(name: str, source: CodeSource | None = None) -> Method:
    """Returns the method called `name`: one of `methods`, or `package.module:Class`.

    Args:
        name: of the method.
        source: the checkpoint that names it; None where the user does.

    Raises:
        UntrustedCodeError: a checkpoint names code, and is not trusted.
        ValueError: there is no such name, module or class; the message lists what there is.
    """
    if name in methods():
        return methods()[name]
    found = import_named(name, "method", source) if names_own_code(name) else None
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(
            f"method must be one of {sorted(methods())}, or a subclass of Method as 'package.module:Class', "
            f"got {name!r}"
        )
    return found()
