"""The methods by name."""

from __future__ import annotations

from latentplan.methods.atp_latent import ATPLatent
from latentplan.methods.base import Method
from latentplan.methods.coconut import Coconut
from latentplan.methods.cot import CoT
from latentplan.methods.no_cot import NoCoT
from latentplan.methods.sim_cot import SimCoT

METHODS: dict[str, Method] = {method.name: method() for method in (CoT, NoCoT, Coconut, SimCoT, ATPLatent)}


def get_method(name: str) -> Method:
    """The method called `name`. Raises ValueError with the names that exist."""
    if name not in METHODS:
        raise ValueError(f"method must be one of {sorted(METHODS)}, got {name!r}")
    return METHODS[name]
