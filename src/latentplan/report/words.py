"""The findings in words: one paragraph made from the numbers, and the warnings that belong before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from latentplan.report.compare import Comparison, compare
from latentplan.report.formats import count, decimal, p_value, percent
from latentplan.report.runs import Run, coherence_of, is_number, rl_pairs

_LATENT_MARGIN = 0.02


@dataclass(frozen=True)
class Caution:
    """Something that readers of the numbers have to know, and which run it concerns."""

    title: str
    text: str


def verdict(runs: Sequence[Run]) -> str:
    """One paragraph: who is most accurate, at which price in tokens, and what RL changed."""
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
    """Every warning of the evaluations, and what the numbers themselves warn of, once each."""
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
