"""Does coherence tell intact chains from broken ones? AUC on the published files, as a Markdown table.

    python benchmarks/natural_coherence.py DATA [--part develop] [--problems 2000] [--resamples 1000]

DATA holds gsm8k/, prosqa/ and strategyqa/ as published. An intact chain is the labelled one with its answer;
a broken one belongs to the same question and answer, with

    shuffled       its steps in another order (chains that have one)
    another's      the chain of another problem
    one another's  one step replaced by one of another problem
    number         one number replaced by another of the question or chain
    name           one category replaced by another of the question (ProsQA)

AUC is the chance that an intact chain scores above a broken one, a tie counting a half: 0.5 is guessing. Its
95% interval is a bootstrap over problems. The score was developed on --part develop; what is reported is the
rest. The second table says what scores are reached by hacks, without any reasoning.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from latentplan.problems.benchmarks.sentences import strategyqa_problem
from latentplan.problems.problem import Problem
from latentplan.problems.sources import load_benchmark
from latentplan.rewards.plan_rewards import grounding, paper_coherence, strict_coherence, validity
from latentplan.rewards.sentence_coherence import natural_coherence
from latentplan.rewards.sentence_parsing import STOP_WORDS

Steps = list[str]
Score = Callable[[Sequence[str], Problem], float]
Breaking = Callable[[Problem, Sequence[Problem], random.Random], Steps | None]

_NUMBER = re.compile(r"(?<![#\d.,])\d+(?:\.\d+)?(?!\d)")
_CATEGORY = re.compile(r"\b[a-z]+pus\b")


# What breaks a chain; None where it cannot.


def shuffled(problem: Problem, others: Sequence[Problem], rng: random.Random) -> Steps | None:
    if len(set(problem.steps)) < 2:
        return None
    steps = rng.sample(problem.steps, len(problem.steps))
    return steps if tuple(steps) != problem.steps else shuffled(problem, others, rng)


def of_another(problem: Problem, others: Sequence[Problem], rng: random.Random) -> Steps:
    other = rng.choice(others)
    return of_another(problem, others, rng) if other is problem else list(other.steps)


def one_of_another(problem: Problem, others: Sequence[Problem], rng: random.Random) -> Steps:
    steps = list(problem.steps)
    steps[rng.randrange(len(steps))] = rng.choice(of_another(problem, others, rng))
    return steps


def number(problem: Problem, others: Sequence[Problem], rng: random.Random) -> Steps | None:
    return _swapped(problem, _NUMBER, rng, lambda text: str(int(float(text)) + rng.randint(1, 9)))


def name(problem: Problem, others: Sequence[Problem], rng: random.Random) -> Steps | None:
    return _swapped(problem, _CATEGORY, rng, lambda text: text)


def _swapped(
    problem: Problem, pattern: re.Pattern[str], rng: random.Random, invent: Callable[[str], str]
) -> Steps | None:
    places = [(step, found) for step, text in enumerate(problem.steps) for found in pattern.finditer(text)]
    if not places:
        return None
    step, found = rng.choice(places)
    known = [text for part in (problem.question, *problem.steps) for text in pattern.findall(part)]
    different = [text for text in known if text != found[0]]
    steps = list(problem.steps)
    put = rng.choice(different) if different else invent(found[0])
    steps[step] = steps[step][: found.start()] + put + steps[step][found.end() :]
    return steps


BREAKINGS: dict[str, Breaking] = {
    "shuffled": shuffled,
    "another's": of_another,
    "one another's": one_of_another,
    "number": number,
    "name": name,
}


# Scores.


def natural(steps: Sequence[str], problem: Problem) -> float:
    return natural_coherence(steps, problem.answer, problem.question)


def strict(steps: Sequence[str], problem: Problem) -> float:
    return strict_coherence(steps, problem.answer)


def paper(steps: Sequence[str], problem: Problem) -> float:
    return paper_coherence(steps, problem.answer)


def plan(steps: Sequence[str], problem: Problem) -> float:
    return validity(steps) * grounding(steps, problem.question) * strict(steps, problem)


def overlap(steps: Sequence[str], problem: Problem) -> float:
    """The share of each step's words and numbers that come again in a later step or in the answer."""
    told = [_tokens(text) for text in (*steps, problem.answer)]
    later = [set().union(*told[place + 1 :]) for place in range(len(steps))]
    shares = [
        len(mine & after) / len(mine) if mine else 0.0 for mine, after in zip(told, later, strict=False)
    ]
    return fmean(shares) if shares else 0.0


def _tokens(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+|\d+(?:\.\d+)?", text.lower())) - STOP_WORDS


# Data.


def strategyqa(folder: Path, chain: str, part: str) -> list[Problem]:
    train, dev = (
        json.loads((folder / "strategyqa" / file).read_text(encoding="utf-8"))
        for file in ("train.json", "dev.json")
    )
    rows = train[:1000] if part == "develop" else train[1000:] + dev
    return [strategyqa_problem(row, chain) for row in rows]


def gsm8k(folder: Path, chain: str, part: str) -> list[Problem]:
    file = folder / "gsm8k" / ("train.jsonl" if part == "develop" else "test.jsonl")
    return load_benchmark("gsm8k", file=file, chain=chain)


def prosqa(folder: Path, part: str) -> list[Problem]:
    file = "valid.json" if part == "develop" else "test.json"
    return load_benchmark("prosqa", file=folder / "prosqa" / file)


def data_sets(folder: Path, part: str) -> Iterator[tuple[str, list[Problem], dict[str, Score]]]:
    """Name, problems, and the scores that read them."""
    on_words = {"natural": natural, "word overlap": overlap}
    on_equations = {"strict": strict, "paper": paper, "plan score": plan, "natural": natural}
    yield "GSM8K, sentences", gsm8k(folder, "sentences", part), on_words
    yield "GSM8K, equations", gsm8k(folder, "equations", part), on_equations
    yield "ProsQA", prosqa(folder, part), on_words
    yield "StrategyQA, decomposition", strategyqa(folder, "decomposition", part), on_words
    yield "StrategyQA, facts", strategyqa(folder, "facts", part), on_words


# Measures.


def auc(intact: np.ndarray, broken: np.ndarray) -> float:
    """The share of pairs in which the intact chain scores higher; a tie counts a half."""
    ordered = np.sort(broken)
    below = np.searchsorted(ordered, intact, "left") + np.searchsorted(ordered, intact, "right")
    return float(below.sum() / (2 * len(intact) * len(broken)))


def auc_with_interval(intact: np.ndarray, broken: np.ndarray, resamples: int) -> tuple[float, float, float]:
    """AUC and its 95% percentile interval; problems are drawn again, each with both of its chains."""
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(intact), size=len(intact)) for _ in range(resamples))
    values = [auc(intact[draw], broken[draw]) for draw in draws]
    low, high = np.quantile(values, [0.025, 0.975]) if values else (np.nan, np.nan)
    return auc(intact, broken), float(low), float(high)


def separation(problems: Sequence[Problem], score: Score, resamples: int) -> Iterator[str]:
    """A cell for each way to break a chain."""
    for breaking in BREAKINGS.values():
        rng = random.Random(0)
        pairs = [
            (score(problem.steps, problem), score(broken, problem))
            for problem in problems
            if (broken := breaking(problem, problems, rng)) is not None
        ]
        if len(pairs) < 30:
            yield "–"
            continue
        estimate, low, high = auc_with_interval(*np.array(pairs).T, resamples)
        yield f"{estimate:.3f} ({low:.3f} to {high:.3f})"


def hacked(problems: Sequence[Problem]) -> list[float]:
    """Mean natural score: intact, first step repeated, question repeated, answer named, told to be."""
    hacks: list[Callable[[Problem], Steps]] = [
        lambda problem: list(problem.steps),
        lambda problem: [problem.steps[0]] * len(problem.steps),
        lambda problem: [problem.question] * len(problem.steps),
        lambda problem: [f"The answer is {problem.answer}"] * len(problem.steps),
        lambda problem: [f"{' '.join(problem.question.split()[:6])} {problem.answer}"],
        lambda problem: [f"{problem.answer} = {problem.answer}", f"{problem.answer}*1 = {problem.answer}"],
    ]
    return [fmean(natural(hack(problem), problem) for problem in problems) for hack in hacks]


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="the folder of the published files")
    parser.add_argument("--part", choices=("report", "develop"), default="report")
    parser.add_argument("--problems", type=int, default=2000, help="problems of each data set at most")
    parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap")
    options = parser.parse_args()
    print(row("chains", "problems", "score", "intact, mean", *BREAKINGS))
    print(row(*["---"] * (4 + len(BREAKINGS))))
    hacks = []
    for title, problems, scores in data_sets(options.data, options.part):
        problems = [problem for problem in problems if problem.steps][: options.problems]
        for label, score in scores.items():
            intact = fmean(score(problem.steps, problem) for problem in problems)
            cells = separation(problems, score, options.resamples)
            print(row(title, len(problems), label, f"{intact:.3f}", *cells), flush=True)
        hacks.append(row(title, *(f"{value:.3f}" for value in hacked(problems))))
    heads = ("first step repeated", "question repeated", "answer named", "question's start and answer")
    print("\n" + row("chains", "intact", *heads, "answer = answer"))
    print("\n".join([row(*["---"] * 7), *hacks]))


if __name__ == "__main__":
    main()
