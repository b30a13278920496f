"""Progress: what is shown on a terminal, what in a log, and that it can be silenced."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from latentplan.training import loggers as progress
from latentplan.training.loggers import ProgressDisplay, describe

SFT_LINE = {
    "loss": 3.25,
    "stage": 2.0,
    "loss/text": 0.5,
    "loss/stop": 1.0,
    "learning_rate": 1e-3,
    "seconds": 2.0,
}
RL_LINE = {
    "loss": 0.0,
    "reward": 1.5,
    "rewards/accuracy/mean": 0.75,
    "rewards/coherence_strict_if_correct/mean": 0.5,
    "latents/mean_length": 4.5,
    "completions/mean_length": 3.0,
    "learning_rate": 1e-6,
    "seconds": 4.0,
}


def test_what_a_line_says():
    assert describe(SFT_LINE) == ["stage 2", "loss 3.25 (text 0.5, stop 1)", "lr 0.001"]
    assert describe(RL_LINE) == [
        "reward 1.5",
        "accuracy 0.75",
        "coherence_strict 0.5",
        "latents 4.5",
        "answer tokens 3",
        "lr 1e-06",
    ]
    assert describe({"eval_accuracy": 0.5, "eval_loss": 2.0}) == ["accuracy 0.5", "loss 2"]


@pytest.mark.parametrize("name", ["reward", "lr", "latents", "logs"])
def test_a_reward_function_may_be_called_like_a_metric(name):
    line = {"reward": 1.5, f"rewards/{name}/mean": 0.25, "latents/mean_length": 3.0, "learning_rate": 0.1}
    assert describe(line) == ["reward 1.5", f"{name} 0.25", "latents 3", "lr 0.1"]


@pytest.fixture
def run_of_four(monkeypatch):
    """Four optimisation steps of 50 tokens and 10 seconds each, with a line at each."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])

    def show(display, first=True):
        state = SimpleNamespace(
            is_world_process_zero=first, max_steps=4, global_step=0, num_input_tokens_seen=0
        )
        display.on_train_begin(None, state, None)
        for step in range(1, 5):
            clock[0] += 10.0
            state.global_step, state.num_input_tokens_seen = step, 50 * step
            display.on_step_end(None, state, None)
            display.on_log(None, state, None, logs=SFT_LINE)
        display.on_train_end(None, state, None)

    return show


def test_elsewhere_there_is_a_plain_line_now_and_then(run_of_four):
    console = Console(file=io.StringIO(), soft_wrap=True)
    run_of_four(ProgressDisplay(console=console))
    metrics = "stage 2 · loss 3.25 (text 0.5, stop 1) · lr 0.001 · 25 tokens/s"
    assert console.file.getvalue().splitlines() == [
        f"step 1/4 · {metrics} · 30 s left",
        f"step 4/4 · {metrics}",
    ]


def test_on_a_terminal_there_is_a_bar_with_the_metrics(run_of_four):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    run_of_four(ProgressDisplay(console=console))
    shown = console.file.getvalue()
    assert "4/4" in shown
    assert "loss 3.25 (text 0.5, stop 1)" in shown
    assert "step 4/4" not in shown


@pytest.mark.parametrize(("disabled", "first"), [(True, True), (False, False)])
def test_silenced_or_on_another_process_nothing_is_shown(disabled, first, run_of_four):
    console = Console(file=io.StringIO(), force_terminal=True)
    run_of_four(ProgressDisplay(disabled=disabled, console=console), first)
    assert console.file.getvalue() == ""


def test_what_takes_long_has_a_bar_of_its_own():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    display = ProgressDisplay(console=console)
    state = SimpleNamespace(is_world_process_zero=True, max_steps=4, global_step=0, num_input_tokens_seen=0)
    display.on_train_begin(None, state, None)
    with display.task("validates", total=20) as on_progress:
        on_progress(15)
        assert [task.completed for task in display.bars.tasks] == [0, 15]
        display.bars.refresh()
    assert len(display.bars.tasks) == 1
    display.close()
    assert "validates" in console.file.getvalue()
    with display.task("validates") as on_progress:
        on_progress(1)  # nothing is shown, and nothing fails
