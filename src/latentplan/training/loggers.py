"""How far a run is: a bar with its metrics on a terminal, a plain line now and then elsewhere.

On the first process only, on standard error; `disable_tqdm` silences it.

Where metrics go besides metrics.jsonl: TensorBoard by default, and what else transformers reports to.

`report_to` is transformers' setting. TensorBoard writes to RUN/tensorboard; a run that goes on hides what it
had written after its checkpoint. Sample trajectories are logged as text (TensorBoard) or as a table
(Weights & Biases, Trackio).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text
from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback, TrackioCallback, WandbCallback

from latentplan.common.text_table import markdown_cell, markdown_table, rough_duration

SECONDS_BETWEEN_LINES = 30.0
CONSOLE = Console(stderr=True, highlight=False, soft_wrap=True)
"""Standard error, shared with whatever else has to be said while a bar is shown."""


class ProgressDisplay(TrainerCallback):
    """Shows optimisation steps, metrics, speed and time left; `task` adds a bar for what takes long.

    Args:
        disabled: show nothing.
        console: where to.
    """

    def __init__(self, disabled: bool = False, console: Console = CONSOLE):
        self.disabled, self.console = disabled, console
        self.bars: _Bars | None = None
        self._main: Any = None
        self._active = False
        self._line = ""
        self._started = self._shown = 0.0
        self._first_step = self._tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts counting from the step that training goes on from."""
        self._active = state.is_world_process_zero and not self.disabled
        self._started, self._first_step = time.monotonic(), state.global_step
        self._tokens = state.num_input_tokens_seen
        if self._active and self.console.is_terminal:
            self.bars = _Bars(console=self.console)
            self._main = self.bars.add_task("trains", total=state.max_steps, completed=state.global_step)
            self.bars.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Moves the bar."""
        if self.bars is not None:
            self.bars.update(self._main, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Shows the metrics of a log line."""
        if not self._active or not logs or not ("loss" in logs or "eval_accuracy" in logs):
            return
        self._line = " · ".join([*describe(logs), *self._speed(logs, state)])
        if self.bars is not None:
            self.bars.line = " · ".join([self._line, *self._time_left(state)])
        elif not self._shown or time.monotonic() - self._shown >= SECONDS_BETWEEN_LINES:
            self._print(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the display with the last line."""
        if self._active and self.bars is None and self._line:
            self._print(state)
        self.close()

    def close(self) -> None:
        """Gives the terminal back, however training ended."""
        if self.bars is not None:
            self.bars.stop()
        self.bars, self._active = None, False

    @contextmanager
    def task(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A second bar while something runs; what it gives is called with how much more is done."""
        if self.bars is None:
            yield lambda done: None
            return
        bars, bar = self.bars, self.bars.add_task(name, total=total)
        try:
            yield lambda done: bars.advance(bar, done)
        finally:
            bars.remove_task(bar)

    def _print(self, state: Any) -> None:
        self._shown = time.monotonic()
        parts = [f"step {state.global_step}/{state.max_steps}", self._line, *self._time_left(state)]
        self.console.print(Text(" · ".join(parts)))
        self._line = ""

    def _speed(self, logs: Mapping[str, float], state: Any) -> list[str]:
        tokens, self._tokens = state.num_input_tokens_seen - self._tokens, state.num_input_tokens_seen
        seconds = logs.get("seconds", 0.0)
        return [f"{tokens / seconds:,.0f} tokens/s"] if tokens and seconds else []

    def _time_left(self, state: Any) -> list[str]:
        done = state.global_step - self._first_step
        if not done or state.global_step >= state.max_steps:
            return []
        seconds = (time.monotonic() - self._started) / done * (state.max_steps - state.global_step)
        return [f"{rough_duration(seconds)} left"]


class _Bars(Progress):
    """The bars, and below them a line of metrics."""

    def __init__(self, console: Console):
        self.line = ""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*columns, console=console, transient=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The table of tasks and the line."""
        yield self.make_tasks_table(self.tasks)
        if self.line:
            yield Text(self.line, style="dim")


def describe(logs: Mapping[str, Any]) -> list[str]:
    """What a log line says, most important first.

    Loss with its parts and the stage in the supervised stage; reward, coherence and lengths in RL; accuracy
    and lengths of an evaluation.
    """
    if "eval_accuracy" in logs:
        return _some(logs, [(name, f"eval_{name}") for name in ("accuracy", "loss", "coherence", "tokens")])
    if "reward" in logs:
        rewards = [
            (name.removeprefix("rewards/").removesuffix("/mean").removesuffix("_if_correct"), name)
            for name in logs
            if name.startswith("rewards/") and name.endswith("/mean")
        ]
        lengths = [("latents", "latents/mean_length"), ("answer tokens", "completions/mean_length")]
        return _some(logs, [("reward", "reward"), *rewards, *lengths, ("lr", "learning_rate")])
    parts = [f"{name.removeprefix('loss/')} {logs[name]:.3g}" for name in logs if name.startswith("loss/")]
    loss = f"loss {logs['loss']:.4g}" + (f" ({', '.join(parts)})" if parts else "")
    stage = [f"stage {logs['stage']:.0f}"] if "stage" in logs else []
    return [*stage, loss, *_some(logs, [("lr", "learning_rate")])]


def _some(logs: Mapping[str, Any], names: Iterable[tuple[str, str]]) -> list[str]:
    """Values with what they are shown as, of the metrics that were logged; `names` are pairs of both."""
    return [f"{shown} {logs[name]:.4g}" for shown, name in names if name in logs]


logger = logging.getLogger(__name__)
TENSORBOARD = "tensorboard"
_PACKAGES = {"wandb": "wandb", "trackio": "trackio", "mlflow": "mlflow"}
_COLUMNS = ("step", "question", "plan", "completion", "answer", "reward", "num_latents")


def usable_trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """The trackers of `report_to` that are installed.

    Without TensorBoard, which is the default, a run goes on and says so.

    Raises:
        ValueError: another tracker is not installed; the message says what to install.
    """
    usable = []
    for name in [report_to] if isinstance(report_to, str) else report_to or []:
        if name == TENSORBOARD and find_spec("tensorboard") is None:
            logger.warning(
                "tensorboard is not installed, so metrics go to metrics.jsonl alone: pip install tensorboard"
            )
            continue
        if name in _PACKAGES and find_spec(_PACKAGES[name]) is None:
            raise ValueError(f"report_to: {name} needs the package: pip install {_PACKAGES[name]}")
        usable.append(name)
    return usable


class RunTensorBoard(TensorBoardCallback):
    """Writes to RUN/tensorboard, and from the step that a run goes on from."""

    def __init__(self, output_dir: str):
        super().__init__()
        self.logging_dir: str | None = str(Path(output_dir) / TENSORBOARD)
        self._purge_step: int | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Opens the file."""
        self._purge_step = state.global_step + 1 if state.global_step else None
        super().on_train_begin(args, state, control, **kwargs)

    def _init_summary_writer(self, args: Any) -> None:
        self.tb_writer = self._SummaryWriter(log_dir=self.logging_dir, purge_step=self._purge_step)


def log_samples(callbacks: Iterable[Any], tag: str, rows: Sequence[Mapping[str, Any]], step: int) -> None:
    """Sends sample trajectories to every tracker among `callbacks` that can show text."""
    columns = [name for name in _COLUMNS if any(name in row for row in rows)]
    data = [[_cell(row.get(name)) for name in columns] for row in rows]
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            callback.tb_writer.add_text(tag, samples_table(columns, data), step)
        elif isinstance(callback, WandbCallback) and callback._wandb is not None:
            table = callback._wandb.Table(columns=columns, data=data)
            callback._wandb.log({tag: table, "train/global_step": step})
        elif isinstance(callback, TrackioCallback) and callback._trackio is not None:
            import pandas

            frame = pandas.DataFrame(data, columns=columns)
            callback._trackio.log({tag: callback._trackio.Table(dataframe=frame), "train/global_step": step})


def samples_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Writes texts as a table in Markdown, for a reader that renders HTML."""
    head, *body = ([markdown_cell(text, html=True) for text in row] for row in [columns, *rows])
    return markdown_table(head, body)


def _cell(value: Any) -> str:
    """A value as text: a plan as its steps, a number short."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
