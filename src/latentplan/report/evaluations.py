"""Which evaluations belong together, and which benchmark a report is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]


@dataclass
class Evaluated:
    """What a run reached on one benchmark.

    Attributes:
        stem: name of the file that the greedy evaluation is in, without its suffix.
        greedy: the evaluation with temperature 0, or None.
        sampled: the evaluation with temperature 1, or None.
    """

    stem: str = ""
    greedy: Result | None = None
    sampled: Result | None = None


def by_benchmark(files: Iterable[tuple[str, Result]]) -> dict[str, Evaluated]:
    """The evaluations of one run, given as (file name without suffix, contents) in order of preference."""
    found: dict[str, Evaluated] = {}
    for stem, result in files:
        evaluated = found.setdefault(str(result.get("benchmark") or stem), Evaluated())
        temperatures = _temperatures(result)
        if temperatures == (0, 0) and evaluated.greedy is None:
            evaluated.stem, evaluated.greedy = stem, result
        elif temperatures == (1, 1) and evaluated.sampled is None:
            evaluated.sampled = result
    return found


def _temperatures(result: Result) -> tuple[Any, Any]:
    """Of the text and of the latents; greedy where the file does not say."""
    sampling = result.get("sampling")
    sampling = sampling if isinstance(sampling, dict) else {}
    temperature = sampling.get("temperature") or 0
    latent = sampling.get("latent_temperature")
    return temperature, temperature if latent is None else latent


def main_benchmark(found: Sequence[dict[str, Evaluated]]) -> str | None:
    """The benchmark to compare runs on: one that as many of them as possible share.

    Among these come first those with a sampled evaluation too, then files called `test…`, then minigsm,
    then GSM8K, then the first by name.
    """
    names = {name for run in found for name in run}

    def rank(name: str) -> tuple[Any, ...]:
        shared = [run[name] for run in found if name in run and run[name].greedy]
        sampled = [evaluated for evaluated in shared if evaluated.sampled]
        is_test = any(evaluated.stem.startswith("test") for evaluated in shared)
        is_minigsm = name.startswith("minigsm")
        return -len(shared), -len(sampled), not is_test, not is_minigsm, name != "gsm8k", name

    return min(names, key=rank, default=None)
