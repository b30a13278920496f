"""The findings in words: one paragraph made from the numbers, the warnings before them, and titles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from latentplan.common.text_table import ABSENT, count, decimal, is_number, p_value, percent
from latentplan.report.run_reader import Comparison, Run, coherence_of, compare, rl_pairs

_SPELLINGS = {
    "cot": "CoT",
    "icot": "iCoT",
    "atp": "ATP",
    "sim": "SIM",
    "codi": "CODI",
    "colar": "CoLaR",
    "sft": "SFT",
    "rl": "RL",
    "grpo": "GRPO",
    "kl": "KL",
}
_METRICS = {
    "loss": "Loss",
    "loss/text": "Written text",
    "loss/step_decoder": "Step decoder",
    "loss/stop": "Stop head",
    "loss/kl": "KL to the standard normal",
    "learning_rate": "Learning rate",
    "grad_norm": "Gradient norm",
    "reward": "Reward",
    "eval_latents/drift": "Distance of the latents' means from the start, in σ",
    "reward_std": "Reward, spread within a group",
    "rewards/accuracy/mean": "Reward part: accuracy",
    "rewards/format/mean": "Reward part: format",
    "rewards/coherence_strict_if_correct/mean": "Reward part: coherence, if correct",
    "rewards/coherence_strict/mean": "Reward part: coherence",
    "rewards/coherence_natural_if_correct/mean": "Reward part: coherence of sentences, if correct",
    "rewards/coherence_natural/mean": "Reward part: coherence of sentences",
    "frac_reward_zero_std": "Groups without any contrast",
    "completions/mean_length": "Text tokens written",
    "entropy": "Entropy of the text tokens",
    "answers/log_likelihood": "Log-likelihood of the right answer",
    "kl": "KL to the starting policy",
    "clip_ratio/region_mean": "Share of clipped actions",
    "latents/mean_length": "Latent tokens used",
    "latents/sigma": "Noise of the latents, σ",
    "latents/spread": "Spread of the latents between questions",
    "eval_loss": "Validation: loss",
    "eval_accuracy": "Validation: accuracy, greedy",
    "eval_coherence": "Validation: coherence of plans",
    "eval_reconstruction": "Validation: steps read exactly",
    "eval_tokens": "Validation: tokens a problem",
}


def metric_title(key: str) -> str:
    """Names a metric in words."""
    if key in _METRICS:
        return _METRICS[key]
    parts = key.removesuffix("/mean").removeprefix("loss/").replace("rewards/", "Reward part: ").split("_")
    words = " ".join(parts).replace("/", ", ")
    return words[:1].upper() + words[1:]


def run_title(name: str) -> str:
    """Returns a title for the name of a run directory: `No-CoT` for `no_cot`, `ATP-Latent RL` for
    `atp_latent_rl`.
    """
    words = [_SPELLINGS.get(word.lower(), word.capitalize()) for word in name.replace("-", "_").split("_")]
    if not any(words):
        return name
    stage = [words.pop()] if len(words) > 1 and words[-1] in ("SFT", "RL", "GRPO") else []
    return " ".join(["-".join(words), *stage])


def when(created: Any) -> str:
    """Returns the date of an ISO timestamp."""
    return created[:16].replace("T", " ") if isinstance(created, str) else ABSENT


_LATENT_MARGIN = 0.02


@dataclass(frozen=True)
class Caution:
    """Something that readers of the numbers have to know, and which run it concerns."""

    title: str
    text: str


def verdict(runs: Sequence[Run]) -> str:
    """Returns one paragraph: who is most accurate, at which price in tokens, and what RL changed."""
    measured = [run for run in runs if is_number(run.measured("accuracy", "estimate"))]
    if not measured:
        return "No run of this report has been evaluated yet, so there is nothing to compare."
    ranked = sorted(measured, key=_accuracy, reverse=True)
    sentences = [*_winner(ranked), *_price(ranked)]
    for before, after in rl_pairs(runs):
        sentences += _change(before, after)
    return " ".join([*sentences, *_caveat(runs)])


def _accuracy(run: Run) -> float:
    return run.measured("accuracy", "estimate")


def _winner(ranked: Sequence[Run]) -> Iterator[str]:
    best, problems = ranked[0], count(ranked[0].measured("num_problems"))
    of = f"of the {problems} problems of {best.measured('benchmark') or 'the benchmark'}"
    interval = f"95% interval {_interval(best)}"
    if len(ranked) == 1:
        yield f"{best.title} answers {percent(_accuracy(best))} {of} correctly ({interval})."
        return
    second = ranked[1]
    comparison = compare(second, best)
    yield f"{best.title} is the most accurate, with {percent(_accuracy(best))} {of} right ({interval})."
    if comparison and comparison.differs:
        yield f"{second.title} follows with {percent(_accuracy(second))}."
    elif comparison:
        yield (
            f"{second.title} reaches {percent(_accuracy(second))}, and the difference between these two "
            f"is no larger than chance explains{_because(comparison)}."
        )


def _price(ranked: Sequence[Run]) -> Iterator[str]:
    latent = next((run for run in ranked if run.measured("tokens", "latents")), None)
    if latent is None:
        return
    used, latents = latent.measured("tokens", "mean"), latent.measured("tokens", "latents")
    mine = f"{decimal(used)} tokens a problem, {decimal(latents)} of them latent"
    theirs = ranked[0].measured("tokens", "mean")
    compared = f"; {ranked[0].title} spends {decimal(theirs)}" if is_number(theirs) else ""
    if latent is ranked[0]:
        yield f"It spends {mine}."
    elif latent is ranked[1]:
        yield f"The latter spends {mine}{compared}."
    else:
        reached = percent(_accuracy(latent))
        yield f"The most accurate with latent tokens, {latent.title} ({reached}), spends {mine}{compared}."


def _change(before: Run, after: Run) -> Iterator[str]:
    comparison = compare(before, after)
    if comparison is None:
        return
    moved = f"from {percent(_accuracy(before))} to {percent(_accuracy(after))}"
    if comparison.differs:
        verb = "raised" if comparison.change > 0 else "lowered"
        yield f"RL {verb} the accuracy of {before.title} {moved}{_turned(comparison)}{_because(comparison)}."
    else:
        turned, because = _turned(comparison), _because(comparison)
        yield f"RL took {before.title} {moved}{turned}: no more than chance explains{because}."
    yield from _sampled_change(before, after)
    yield from _coherence_change(before, after)


def _turned(comparison: Comparison) -> str:
    if comparison.fixed is None or comparison.broken is None:
        return ""
    return f", fixing {count(comparison.fixed)} problems and breaking {count(comparison.broken)}"


def _sampled_change(before: Run, after: Run) -> Iterator[str]:
    values = [run.measured_sampled("accuracy", "estimate") for run in (before, after)]
    if all(map(is_number, values)):
        yield f"With sampled answers it went from {percent(values[0])} to {percent(values[1])}."


def _coherence_change(before: Run, after: Run) -> Iterator[str]:
    values = [coherence_of(run.greedy) for run in (before, after)]
    if all(map(is_number, values)):
        old, new = (decimal(value, 3) for value in values)
        same = f"stayed at {old}" if old == new else f"went from {old} to {new}"
        yield f"The coherence of its decoded plans {same}."


def _because(comparison: Comparison) -> str:
    return "" if comparison.p_value is None else f" (McNemar, {p_value(comparison.p_value)})"


def _interval(run: Run) -> str:
    return f"{percent(run.measured('accuracy', 'low'))} to {percent(run.measured('accuracy', 'high'))}"


def _caveat(runs: Sequence[Run]) -> Iterator[str]:
    if len(runs) > 1:
        yield (
            "Each method was trained once: the intervals cover the choice of test problems, "
            "not the spread between training seeds."
        )


def cautions(runs: Sequence[Run]) -> list[Caution]:
    """Returns every warning of the evaluations, and what the numbers themselves warn of, once each."""
    found = [caution for run in runs for caution in _cautions(run)]
    return list(dict.fromkeys(found))


def _cautions(run: Run) -> Iterator[Caution]:
    status = run.record.get("status")
    if status not in (None, "finished"):
        yield Caution(run.title, f"This run has not finished (its status is '{status}').")
    for warning in run.recorded("warnings") or []:
        if isinstance(warning, dict) and warning.get("message"):
            yield Caution(run.title, f"At step {warning.get('step')} of training: {warning['message']}.")
    given = [
        str(text) for text in [*(run.measured("warnings") or []), *(run.measured_sampled("warnings") or [])]
    ]
    yield from (Caution(run.title, text) for text in given)
    if "latent" not in " ".join(given).lower():
        yield from _unused_latents(run)


def _unused_latents(run: Run) -> Iterator[Caution]:
    intact = run.measured("latent_use", "intact")
    others = [run.measured("latent_use", name) for name in ("zero", "noise", "other_question")]
    replaced = [value for value in others if is_number(value)]
    if is_number(intact) and replaced and intact - max(replaced) < _LATENT_MARGIN:
        yield Caution(
            run.title,
            f"Accuracy hardly falls, from {percent(intact)} to {percent(max(replaced))}, when the latents "
            "are replaced: the answers do not depend on them, so what they decode to explains nothing.",
        )
