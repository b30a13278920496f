"""Problems in ProsQA's sentences that a two-layer model learns on a CPU in minutes.

    python benchmarks/prosqa_small.py prosqa/valid.json --output data/prosqa-small

ProsQA tells a graph of its own in some 40 sentences in each of its problems. Here all problems are told over
*one* graph, that of one published problem, in which each category keeps only its first parent; what differs
is who is what, where the chains start, how long they are (two or three sentences), and the order of all:

    Every terpus is a brimpus. Bob is a gorpus. Tom is a terpus. Every gorpus is a lempus. Is Tom a lempus or
    brimpus?

So the links between categories can be learned by heart, which ProsQA's cannot: what a model learns here says
nothing about ProsQA. Writes train.jsonl and valid.jsonl, which share no question.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from latentplan.problems.problem import Problem


def parents_of(row: dict) -> dict[str, str]:
    """The first parent of each category in a published row, as the order of its edges has it."""
    symbols, parents = row["idx_to_symbol"], {}
    for child, parent in row["edges"]:
        if not symbols[child][0].isupper():
            parents.setdefault(symbols[child], symbols[parent])
    return parents


def climb(category: str, parents: dict[str, str], count: int) -> list[str]:
    """A category and its ancestors, `count` in all or up to the root."""
    path = [category]
    while len(path) < count and path[-1] in parents:
        path.append(parents[path[-1]])
    return path


def told(name: str, path: list[str]) -> list[str]:
    """`Tom is a terpus.`, then `Every terpus is a brimpus.` and so on."""
    return [f"{name} is a {path[0]}.", *(f"Every {low} is a {high}." for low, high in pairwise(path))]


def problems(parents: dict[str, str], names: list[str], rng: random.Random) -> Iterator[Problem]:
    """Endless problems: the path of one name, that of another, and which of their ends is asked for."""
    categories = sorted(set(parents) | set(parents.values()))
    while True:
        who, other = rng.sample(names, 2)
        path, wrong = (climb(rng.choice(categories), parents, rng.choice((2, 3))) for _ in range(2))
        if len(path) < 2 or wrong[-1] in path or path[-1] in wrong:
            continue
        steps = told(who, path)
        sentences = list(dict.fromkeys(steps + told(other, wrong)))
        rng.shuffle(sentences)
        options = rng.sample([path[-1], wrong[-1]], 2)
        question = f"{' '.join(sentences)} Is {who} a {options[0]} or {options[1]}?"
        yield Problem(question, tuple(steps), f"{who} is a {path[-1]}.")


def different(found: Iterator[Problem], count: int) -> list[Problem]:
    """The first `count` problems with different questions."""
    kept: dict[str, Problem] = {}
    while len(kept) < count:
        problem = next(found)
        kept.setdefault(problem.key, problem)
    return list(kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="a published file of ProsQA")
    parser.add_argument("--output", type=Path, required=True, help="the folder to write into")
    parser.add_argument("--row", type=int, default=0, help="the problem whose graph is taken, from 0")
    parser.add_argument("--train", type=int, default=10_000, help="training problems")
    parser.add_argument("--valid", type=int, default=500, help="validation problems")
    parser.add_argument("--names", type=int, default=8, help="different names")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = json.loads(options.file.read_text(encoding="utf-8"))
    names = sorted({symbol for row in rows for symbol in row["idx_to_symbol"] if symbol[0].isupper()})
    rng = random.Random(options.seed)
    found = different(
        problems(parents_of(rows[options.row]), names[: options.names], rng), options.train + options.valid
    )
    options.output.mkdir(parents=True, exist_ok=True)
    for part, kept in (("train", found[: options.train]), ("valid", found[options.train :])):
        file = options.output / f"{part}.jsonl"
        file.write_text("".join(f"{json.dumps(each.to_json())}\n" for each in kept), encoding="utf-8")
        print(f"{file}: {len(kept)} problems")


if __name__ == "__main__":
    main()
