"""When training goes wrong: rules from lines of metrics to a sentence that says what to try, or None.

Each rule looks at the newest lines that have its metric; `situation` holds what metrics do not tell. The
table in docs/metrics.md lists them all with their thresholds.

A callback that says when training goes wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean, median
from typing import Any

from rich.text import Text
from transformers import TrainerCallback

from latentplan.rollout.decoding_accuracy import RELIABLE_RECONSTRUCTION
from latentplan.training.loggers import CONSOLE
from latentplan.training.run_directory import RunDirectory

Row = Mapping[str, Any]

MAX_ZERO_STD, ZERO_STD_LINES = 0.8, 10
MAX_CLIPPED, MAX_CLAMPED, RATIO_LINES = 0.3, 0.1, 5
MIN_SIGMA, MIN_SPREAD, LATENT_LINES = 1e-3, 0.05, 5
EMPTY, FULL, MAX_UNFINISHED, LENGTH_LINES = 0.02, 0.98, 0.25, 5
SPIKE, SPIKE_LINES = 3.0, 10
STOP_MARGIN = 0.2
MIN_SIGNAL = 0.02
MIN_AGREEMENT, AGREEMENT_LINES = 0.02, 2


@dataclass(frozen=True)
class Situation:
    """What rules have to know of a run.

    Attributes:
        num_slots: latent slots of the model.
        has_stop_head: whether the number of latents can vary.
        last_stage: the last stage of the curriculum; None without one.
        scores_latents: whether the log-probabilities of latents are learned from.
    """

    num_slots: int = 0
    has_stop_head: bool = False
    last_stage: int | None = None
    scores_latents: bool = False


Rule = Callable[[Sequence[Row], Situation], str | None]


def newest(rows: Sequence[Row], name: str, count: int) -> list[float]:
    """The newest `count` values of a metric; none if there are fewer, or the last line lacks it."""
    if not rows or name not in rows[-1]:
        return []
    values = [row[name] for row in rows if name in row][-count:]
    return values if len(values) == count else []


def unread_plans(rows: Sequence[Row], situation: Situation) -> str | None:
    """The decoder misreads latents, at the start of RL or at an evaluation."""
    shares = newest(rows, "reconstruction", 1) or newest(rows, "eval_reconstruction", 1)
    if not shares or shares[0] >= RELIABLE_RECONSTRUCTION:
        return None
    return (
        f"the decoder reads {shares[0]:.0%} of the steps exactly, below {RELIABLE_RECONSTRUCTION:.0%}: "
        "rewards for coherence are unreliable. Train the supervised stage longer, or give coherence less "
        "weight"
    )


def missing_rewards(rows: Sequence[Row], situation: Situation) -> str | None:
    """Trajectories that no reward applies to, or a reward that applies to none."""
    shares = newest(rows, "frac_reward_none", 1)
    if not shares:
        return None
    beginning, end = "rewards/", "/frac_none"
    missing = {
        name.removeprefix(beginning).removesuffix(end): value
        for name, value in rows[-1].items()
        if name.startswith(beginning) and name.endswith(end) and value > 0
    }
    named = ", ".join(f"{name} in {value:.1%}" for name, value in missing.items())
    if shares[0] == 1:
        return (
            f"no reward applies to any trajectory, so nothing is learned (None or NaN: {named}): look at the "
            "columns of the data that these rewards read"
        )
    if shares[0] > 0:
        return (
            f"no reward applies to {shares[0]:.1%} of the trajectories (None or NaN: {named}): these enter "
            "no mean of their group and are not learned from"
        )
    never = [name for name, value in missing.items() if value == 1]
    return (
        f"applies to no trajectory, and so adds nothing to the reward: {', '.join(never)}" if never else None
    )


def no_contrast(rows: Sequence[Row], situation: Situation) -> str | None:
    """Most groups have equal rewards, so they teach nothing."""
    shares = newest(rows, "frac_reward_zero_std", ZERO_STD_LINES)
    if not shares or fmean(shares) < MAX_ZERO_STD:
        return None
    return (
        f"in {fmean(shares):.0%} of the groups all rewards are equal, so they teach nothing. If the model "
        "solves nearly all of them, stop or take harder problems; if it solves none, train the supervised "
        "stage longer; else raise num_generations, temperature or latent_temperature, or add a graded reward "
        "such as plan"
    )


def saturated_ratios(rows: Sequence[Row], situation: Situation) -> str | None:
    """Clip or clamp takes the gradient from many actions."""
    clamped = newest(rows, "clip_ratio/clamped", RATIO_LINES)
    if clamped and fmean(clamped) > MAX_CLAMPED:
        return (
            f"the log-ratio of {fmean(clamped):.0%} of the actions is beyond max_log_ratio: lower "
            "learning_rate, or take latent_logprob: mean or latent_gradient: pathwise, whose ratios do not "
            "sum over dimensions"
        )
    clipped = newest(rows, "clip_ratio/region_mean", RATIO_LINES)
    if clipped and fmean(clipped) > MAX_CLIPPED:
        return (
            f"{fmean(clipped):.0%} of the actions get no gradient because their ratio is clipped: lower "
            "learning_rate, num_iterations or steps_per_generation"
        )
    return None


def collapsed_latents(rows: Sequence[Row], situation: Situation) -> str | None:
    """Latents no longer depend on the question, or no longer vary."""
    spread = newest(rows, "latents/spread", LATENT_LINES)
    if spread and max(spread) < MIN_SPREAD:
        return (
            f"the latents of different questions differ by {max(spread):.1%} of their size: they have "
            "collapsed. Start from a supervised model with a smaller kl weight, or set beta"
        )
    sigma = newest(rows, "latents/sigma", LATENT_LINES)
    if sigma and max(sigma) < MIN_SIGMA:
        return (
            f"σ of the latents is {max(sigma):.1e}: sampling explores nothing. Raise latent_temperature, or "
            "start from a supervised model with a larger kl weight"
        )
    return None


def runaway_lengths(rows: Sequence[Row], situation: Situation) -> str | None:
    """Chains of latents are always full or always empty, or answers do not end."""
    used = newest(rows, "latents/mean_length", LENGTH_LINES)
    if used and situation.has_stop_head and situation.num_slots:
        share = fmean(used) / situation.num_slots
        if share >= FULL or share <= EMPTY:
            which = "all" if share >= FULL else "none"
            return (
                f"{which} of the {situation.num_slots} latent slots are used on every problem: the stop head "
                "has lost its meaning. Lower learning_rate, set beta, or draw more chains a question "
                "(a lower answers_per_latent)"
            )
    unfinished = newest(rows, "completions/clipped_ratio", LENGTH_LINES)
    if unfinished and fmean(unfinished) > MAX_UNFINISHED:
        return (
            f"{fmean(unfinished):.0%} of the answers do not end within max_completion_length: raise it, set "
            "mask_truncated_completions, or give format more weight"
        )
    return None


def silent_latents(rows: Sequence[Row], situation: Situation) -> str | None:
    """Latents are learned from by their log-probabilities, and rewards hardly depend on which were drawn."""
    parts = ("latents", "stops", "answers")
    shares = [share for name in parts for share in newest(rows, f"variance/{name}", 1)]
    shares = shares or [share for name in parts for share in newest(rows, f"eval_variance/{name}", 1)]
    nothing_differs = not any(shares)
    if not situation.scores_latents or nothing_differs or shares[0] >= MIN_SIGNAL:
        return None
    return (
        f"{shares[0]:.1%} of the differences between a question's rewards come from its latents, the rest "
        "from stops and answer words: the score function of the latents is noise. Take latent_gradient: "
        "pathwise, or raise latent_temperature"
    )


def noisy_gradient(rows: Sequence[Row], situation: Situation) -> str | None:
    """Two halves of a batch do not agree on where to move the latent head or the backbone."""
    for part in ("latent_head", "backbone"):
        cosines = newest(rows, f"eval_agreement/{part}", AGREEMENT_LINES)
        if cosines and fmean(cosines) < MIN_AGREEMENT:
            other = "latent_gradient: pathwise, " if situation.scores_latents else ""
            return (
                f"two halves of the questions agree by {fmean(cosines):.2f} on where to move the {part} (1: "
                f"all signal, 0: all noise): take {other}more questions a step, or more answers for each "
                "chain (answers_per_latent)"
            )
    return None


def loss_spike(rows: Sequence[Row], situation: Situation) -> str | None:
    """The loss is far above what it was on the lines before it at the same stage."""
    if not rows or "loss" not in rows[-1]:
        return None
    now = rows[-1]
    before = [row["loss"] for row in rows[:-1] if "loss" in row and row.get("stage") == now.get("stage")]
    before = [loss for loss in before if isfinite(loss)]
    if len(before) < SPIKE_LINES:
        return None
    usual = median(before[-SPIKE_LINES:])
    if not now["loss"] > SPIKE * usual > 0:
        return None
    return (
        f"the loss jumped to {now['loss']:.3g}, from {usual:.3g} on the lines before it: lower learning_rate "
        "or max_grad_norm, or raise stage_warmup_steps"
    )


def stuck_stop_head(rows: Sequence[Row], situation: Situation) -> str | None:
    """Rollouts use no slot or every slot at the last stage, though the labels say otherwise."""
    used, needed = (newest(rows, f"eval_{name}", 1) for name in ("latents", "latents_needed"))
    slots = situation.num_slots
    if not (used and needed and slots and situation.has_stop_head and _is_at_last_stage(rows, situation)):
        return None
    extreme = used[0] >= FULL * slots or used[0] <= EMPTY * slots
    if not extreme or abs(used[0] - needed[0]) <= STOP_MARGIN * slots:
        return None
    return (
        f"the stop head lets every rollout use {used[0]:.1f} of {slots} latents, where {needed[0]:.1f} are "
        "needed: raise the weight of the stop objective, or train the last stage longer"
    )


def _is_at_last_stage(rows: Sequence[Row], situation: Situation) -> bool:
    stages = [row["stage"] for row in rows if "stage" in row]
    return situation.last_stage is None or (bool(stages) and stages[-1] >= situation.last_stage)


SFT_RULES: dict[str, Rule] = {
    "loss_spike": loss_spike,
    "stuck_stop_head": stuck_stop_head,
}
RL_RULES: dict[str, Rule] = {
    "unread_plans": unread_plans,
    "missing_rewards": missing_rewards,
    "no_contrast": no_contrast,
    "saturated_ratios": saturated_ratios,
    "collapsed_latents": collapsed_latents,
    "runaway_lengths": runaway_lengths,
    "silent_latents": silent_latents,
    "noisy_gradient": noisy_gradient,
}


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
