"""Old names of modules, which work for one version more, with a notice."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NamedTuple


class Renamed(NamedTuple):
    """Where a module is now, and the names in it that have changed as well, old to new."""

    module: str
    names: dict[str, str] = {}  # noqa: RUF012


_MINIGSM = "latentplan.problems.minigsm"
RENAMED = {
    "latentplan.modeling.context": Renamed(
        "latentplan.modeling.decoding_state", {"Context": "DecodingState"}
    ),
    "latentplan.modeling.latents": Renamed("latentplan.modeling.thinking"),
    "latentplan.rollout.sampling": Renamed("latentplan.modeling.sampling"),
    "latentplan.rollout.rolling": Renamed(
        "latentplan.rollout.continuous_batching", {"RollingBatch": "ContinuousBatch"}
    ),
    "latentplan.serving.inspector.walk": Renamed("latentplan.rollout.trace", {"walk": "trace"}),
    "latentplan.serving.inspector.decoded": Renamed("latentplan.rollout.decoded_text"),
    f"{_MINIGSM}.config": Renamed(f"{_MINIGSM}.presets"),
    f"{_MINIGSM}.family": Renamed(f"{_MINIGSM}.story_template", {"Family": "StoryTemplate"}),
    f"{_MINIGSM}.numbers": Renamed(f"{_MINIGSM}.number_kinds"),
    f"{_MINIGSM}.graph": Renamed(f"{_MINIGSM}.expression_graph"),
    f"{_MINIGSM}.plans": Renamed(f"{_MINIGSM}.solution_chains"),
    f"{_MINIGSM}.words": Renamed(f"{_MINIGSM}.word_problems"),
}


class _Finder(MetaPathFinder, Loader):
    """Finds modules by their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Answers for old names alone."""
        return ModuleSpec(fullname, self) if fullname in RENAMED else None

    def exec_module(self, module: ModuleType) -> None:
        """Fills the module with what the renamed one holds."""
        renamed = RENAMED[module.__name__]
        warnings.warn(
            f"{module.__name__} is {renamed.module} now; the old name goes with the next version",
            DeprecationWarning,
            stacklevel=2,
        )
        found = vars(import_module(renamed.module))
        vars(module).update({name: value for name, value in found.items() if not name.startswith("__")})
        vars(module).update({old: found[new] for old, new in renamed.names.items()})


def accept_old_names() -> None:
    """Has Python import modules by their old names, too."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
