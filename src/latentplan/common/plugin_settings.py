"""The settings of a plug-in that a run chooses by name, such as its method.

A setting of a run names the plug-in (`method: colar`). The plug-in's own settings are a dataclass. In recipes
and flags each of them stands by its own name (`compression_factor: 5`); the run keeps them as one mapping, in
the setting `NAME_settings` (`method_settings`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from types import NoneType
from typing import Any, get_args, get_type_hints

from latentplan.common.plugins import settings_from


@dataclass(frozen=True)
class NoSettings:
    """The settings of a plug-in that has none of its own."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in that a run has chosen.

    Attributes:
        setting: the setting that names it, such as `method`.
        name: its name.
        settings: its dataclass of settings.
    """

    setting: str
    name: str
    settings: type

    @property
    def owner(self) -> str:
        """Names the plug-in in messages."""
        return f"{self.setting} {self.name}"

    @property
    def stored_in(self) -> str:
        """Names the setting of the run that keeps the plug-in's own settings as a mapping."""
        return f"{self.setting}_settings"

    @property
    def names(self) -> list[str]:
        """Lists the plug-in's own settings."""
        return [each.name for each in fields(self.settings)]

    def admits_none(self, name: str) -> bool:
        """Says whether one of the plug-in's own settings may be null."""
        return NoneType in get_args(get_type_hints(self.settings)[name])

    def read(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns all settings of the plug-in, defaults included.

        Raises:
            ValueError: there is no such setting, or a value is of the wrong type or out of range.
        """
        return asdict(settings_from(self.settings, values, self.owner))


@dataclass(frozen=True)
class PluginKind:
    """A setting whose value names a plug-in with settings of its own.

    Attributes:
        setting: the setting, such as `method`.
        chosen: maps the settings of a run, defaults included, to the name of the chosen plug-in and its
            dataclass of settings.
        shipped: returns the dataclass of settings of each plug-in that comes with latentplan, by name.
    """

    setting: str
    chosen: Callable[[Mapping[str, Any]], tuple[str, type]]
    shipped: Callable[[], Mapping[str, type]]

    def plugin(self, settings: Mapping[str, Any]) -> Plugin:
        """Returns the plug-in that the settings of a run choose. Raises ValueError where there is none."""
        return Plugin(self.setting, *self.chosen(settings))

    def all_shipped(self) -> list[Plugin]:
        """Lists the plug-ins that come with latentplan."""
        return [Plugin(self.setting, name, settings) for name, settings in self.shipped().items()]


def kinds_of(classes: Sequence[type]) -> list[PluginKind]:
    """Lists the settings of some dataclasses that name plug-ins: their `plugin_kinds`."""
    return [kind for each in classes for kind in getattr(each, "plugin_kinds", ())]


def plugins_of(classes: Sequence[type], settings: Mapping[str, Any]) -> list[Plugin]:
    """Lists the plug-ins that the settings of a run choose, one for each of `kinds_of(classes)`.

    Args:
        classes: the dataclasses of settings that every such run has.
        settings: of the run; the others, and those that are None, have their defaults.

    Raises:
        ValueError: there is no such plug-in, or one of its settings has the name of another setting.
    """
    shared = {
        item.name: None if item.default is MISSING else item.default
        for each in classes
        for item in fields(each)
    }
    given = {name: value for name, value in settings.items() if value is not None}
    found = [kind.plugin({**shared, **given}) for kind in kinds_of(classes)]
    taken = dict.fromkeys(shared, "every run")
    for plugin in found:
        for name in plugin.names:
            if name in taken:
                raise ValueError(
                    f"{name} is a setting of {plugin.owner} and of {taken[name]}: rename the former"
                )
            taken[name] = plugin.owner
    return found


def owner_of(name: str, kinds: Sequence[PluginKind], chosen: Sequence[Plugin]) -> str | None:
    """Says which plug-in a setting belongs to that the chosen ones do not have; None where no plug-in has it.

    Args:
        name: of the setting.
        kinds: the settings that name plug-ins.
        chosen: the plug-in that the run has of each kind.
    """
    for kind, plugin in zip(kinds, chosen, strict=True):
        owners = [each.name for each in kind.all_shipped() if name in each.names]
        if owners:
            return (
                f"{name} is a setting of {kind.setting} {' and '.join(owners)}; this run's {kind.setting} is "
                f"{plugin.name}"
            )
    return None
