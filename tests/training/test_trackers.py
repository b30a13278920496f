"""Trackers: TensorBoard by default, samples as text, and what happens when a package is absent."""

import json
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers.integrations.integration_utils import TrackioCallback, WandbCallback

from latentplan.training import loggers as trackers
from latentplan.training import run_training as runs
from latentplan.training.configs import SFTConfig
from latentplan.training.loggers import log_samples, samples_table, usable_trackers
from latentplan.training.run_directory import MetricsFile


def read_events(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def scalars(events, name):
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_is_the_default():
    assert SFTConfig(output_dir="unused", use_cpu=True).report_to == ["tensorboard"]


def test_metrics_and_samples_are_in_the_run_directory(run_sft, tmp_path):
    run = run_sft(
        tmp_path / "run",
        report_to="tensorboard",
        save_strategy="no",
        eval_strategy="steps",
        eval_steps=9,
        eval_dataset_size=8,
    )
    events = read_events(run.path / "tensorboard")
    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert scalars(events, "train/loss/text") == [
        (row["step"], pytest.approx(row["loss/text"])) for row in rows if "loss" in row
    ]
    assert scalars(events, "eval/accuracy") == [(9, rows[-1]["eval_accuracy"])]
    (text,) = events.Tensors("validation/samples/text_summary")
    assert "| question |" in text.tensor_proto.string_val[0].decode()


def test_a_run_that_goes_on_shows_every_step_once(run_sft, monkeypatch, tmp_path):
    class Interrupting(MetricsFile):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 6:  # after the checkpoint of step 4
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "MetricsFile", Interrupting)
        with pytest.raises(KeyboardInterrupt):
            run_sft(tmp_path / "run", report_to="tensorboard", save_steps=4)
    run_sft(tmp_path / "run", report_to="tensorboard", save_steps=4)
    events = read_events(tmp_path / "run" / "tensorboard")
    assert [step for step, _ in scalars(events, "train/loss")] == list(range(1, 10))


def test_without_tensorboard_a_run_goes_on_and_other_trackers_are_asked_for(monkeypatch, caplog):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert usable_trackers(["tensorboard"]) == []
    assert "pip install tensorboard" in caplog.text
    with pytest.raises(ValueError, match="report_to: wandb needs the package: pip install wandb"):
        usable_trackers(["tensorboard", "wandb"])
    assert usable_trackers([]) == usable_trackers(None) == []


ROWS = [
    {
        "step": 3,
        "question": "1 | 2?",
        "plan": ["<<1+2=3>>", "<<3+1=4>>"],
        "completion": "### 4",
        "reward": 0.5,
    },
    {"step": 3, "question": "no\nplan", "plan": None, "completion": "### 1", "reward": 1.0},
]


def test_samples_as_a_table_in_markdown():
    assert samples_table(["a", "b"], [["1|2", "<<x>>\ny"]]).splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| 1\\|2 | &lt;&lt;x>><br>y |",
    ]


class Recorder:
    """The three calls of wandb and trackio that are used."""

    def __init__(self):
        self.logged = []

    def log(self, values):
        self.logged.append(values)

    def Table(self, **arguments):  # noqa: N802
        return SimpleNamespace(**arguments)


@pytest.mark.parametrize(
    ("kind", "attribute"),
    [(WandbCallback, "_wandb"), (TrackioCallback, "_trackio")],
    ids=["wandb", "trackio"],
)
def test_samples_as_a_table_for_wandb_and_trackio(kind, attribute):
    if kind is TrackioCallback:
        pytest.importorskip("pandas")  # comes with Trackio
    callback, recorder = object.__new__(kind), Recorder()
    setattr(callback, attribute, recorder)
    log_samples([callback], "rollouts/samples", ROWS, step=3)
    (values,) = recorder.logged
    assert values["train/global_step"] == 3
    table = values["rollouts/samples"]
    if kind is WandbCallback:
        columns, data = table.columns, table.data
    else:
        columns, data = list(table.dataframe.columns), table.dataframe.to_numpy().tolist()
    assert columns == ["step", "question", "plan", "completion", "reward"]
    assert data[0] == ["3", "1 | 2?", "<<1+2=3>> <<3+1=4>>", "### 4", "0.5"]
    assert data[1][2] == ""
