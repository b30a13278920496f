"""The methods by name: those that come with latentplan, and the user's own as `package.module:Class`."""

from __future__ import annotations

from latentplan.methods.atp_latent import ATPLatent
from latentplan.methods.base import Method
from latentplan.methods.coconut import Coconut
from latentplan.methods.codi import CODI
from latentplan.methods.colar import CoLaR
from latentplan.methods.cot import CoT
from latentplan.methods.icot import ICoT
from latentplan.methods.no_cot import NoCoT
from latentplan.methods.pause import Pause
from latentplan.methods.sim_cot import SimCoT
from latentplan.problems.importing import CodeSource, import_named, names_own_code

METHODS: dict[str, Method] = {
    method.name: method() for method in (CoT, NoCoT, ICoT, Pause, Coconut, SimCoT, CODI, CoLaR, ATPLatent)
}


def get_method(name: str, source: CodeSource | None = None) -> Method:
    """The method called `name`: one of `METHODS`, or `package.module:Class`.

    Args:
        name: of the method.
        source: the checkpoint that names it; None where the user does.

    Raises:
        UntrustedCodeError: a checkpoint names code, and is not trusted.
        ValueError: there is no such name, module or class; the message lists what there is.
    """
    if name in METHODS:
        return METHODS[name]
    found = import_named(name, "method", source) if names_own_code(name) else None
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise ValueError(
            f"method must be one of {sorted(METHODS)}, or a subclass of Method as 'package.module:Class', "
            f"got {name!r}"
        )
    return found()
