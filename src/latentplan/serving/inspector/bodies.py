"""What the page sends, checked."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from latentplan.serving.inspector.edits import Edit
from latentplan.serving.requests import not_almost_zero

MAX_EDITS = 64
_SEED = Field(default=0, ge=0, lt=2**31)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class AskBody(_Body):
    """Which model, which question, and the right answer where it is known."""

    model: str
    question: str
    reference: str | None = Field(default=None, max_length=1000)


class SampleBody(AskBody):
    """How many samples, and how they are drawn."""

    count: int = Field(default=16, ge=1)
    temperature: float = Field(default=1.0, ge=0, le=5)
    latent_temperature: float = Field(default=1.0, ge=0, le=10)
    seed: int = _SEED

    _not_almost_zero = field_validator("temperature")(not_almost_zero)


class EditBody(_Body):
    """One edit, see `edits.Edit`."""

    kind: Literal["delete", "zero", "noise", "swap", "keep", "splice", "move"]
    steps: list[int] = Field(default=[], max_length=MAX_EDITS)
    seed: int = _SEED
    question: str | None = None
    from_step: int | None = None
    model: str | None = None
    share: float = Field(default=1.0, ge=0, le=1)
    think_on: bool = False

    def edit(self) -> Edit:
        """The edit that is meant."""
        return Edit(**{**self.model_dump(), "steps": tuple(self.steps)})


class InterveneBody(AskBody):
    """The edits, each made to the intact chain."""

    edits: list[EditBody] = Field(min_length=1, max_length=MAX_EDITS)
