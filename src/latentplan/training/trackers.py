"""Where metrics go besides metrics.jsonl: TensorBoard by default, and what else transformers reports to.

`report_to` is transformers' setting. TensorBoard writes to RUN/tensorboard; a run that goes on hides what it
had written after its checkpoint. Sample trajectories are logged as text (TensorBoard) or as a table
(Weights & Biases, Trackio).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import TensorBoardCallback, TrackioCallback, WandbCallback

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
            callback.tb_writer.add_text(tag, markdown_table(columns, data), step)
        elif isinstance(callback, WandbCallback) and callback._wandb is not None:
            table = callback._wandb.Table(columns=columns, data=data)
            callback._wandb.log({tag: table, "train/global_step": step})
        elif isinstance(callback, TrackioCallback) and callback._trackio is not None:
            import pandas

            frame = pandas.DataFrame(data, columns=columns)
            callback._trackio.log({tag: callback._trackio.Table(dataframe=frame), "train/global_step": step})


def markdown_table(columns: Sequence[str], data: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *data]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")


def _cell(value: Any) -> str:
    """A value as text: a plan as its steps, a number short."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
