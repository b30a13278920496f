"""A callback that says when training goes wrong."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from transformers import TrainerCallback

from latentplan.training.health import Rule, Situation
from latentplan.training.progress import CONSOLE
from latentplan.training.run_directory import RunDirectory

QUIET_LINES = 50
"""Log lines for which a warning that has been given is not given again."""
_REMEMBERED_LINES = 200


class Watcher(TrainerCallback):
    """Tries rules on every log line; what they say goes to standard error and to run.json (`warnings`).

    Args:
        run: the run directory.
        rules: by name.
        situation: what the rules have to know of the run.
    """

    def __init__(self, run: RunDirectory, rules: dict[str, Rule], situation: Situation):
        self.run, self.rules, self.situation = run, rules, situation
        self._rows: list[dict[str, Any]] = []
        self._quiet_until: dict[str, int] = {}
        self._lines = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Forgets the warnings that came after the step that training goes on from."""
        if state.is_world_process_zero:
            kept = [each for each in self._given() if each["step"] <= state.global_step]
            if kept != self._given():
                self.run.update(warnings=kept)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Looks at a line of metrics and at those before it."""
        if state.is_world_process_zero and logs:
            self.look({"step": state.global_step, **logs})

    def look(self, row: dict[str, Any]) -> None:
        """Adds a line of metrics and gives the warnings that follow from it."""
        self._rows = [*self._rows[-_REMEMBERED_LINES:], row]
        self._lines += 1
        for name, rule in self.rules.items():
            message = rule(self._rows, self.situation)
            if message is not None and self._lines >= self._quiet_until.get(name, 0):
                self._quiet_until[name] = self._lines + QUIET_LINES
                warn(message)
                self._keep({"step": row["step"], "name": name, "message": message})

    def _keep(self, warning: dict[str, Any]) -> None:
        same = (warning["step"], warning["name"])
        others = [each for each in self._given() if (each["step"], each["name"]) != same]
        self.run.update(warnings=[*others, warning])

    def _given(self) -> list[dict[str, Any]]:
        return self.run.record.get("warnings", [])


def warn(message: str) -> None:
    """Says something on standard error, above the progress bar if there is one."""
    CONSOLE.print(Text(f"warning: {message}", style="yellow"))
