"""Hashes of the problems that minigsm generates, to show that a change of the code leaves them equal.

    python benchmarks/minigsm_hashes.py > before.txt        # on one revision
    python benchmarks/minigsm_hashes.py > after.txt         # on another
    diff before.txt after.txt

One line for each preset, split and seed, and one for each story by itself. A hash covers, in order, the
question, the labelled chain, the answer and all valid chains of every problem, and its counterfactual.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace

from latentplan.problems.counterfactuals import generate_pairs
from latentplan.problems.minigsm import PRESETS, MinigsmConfig, SpaceExhaustedError
from latentplan.problems.minigsm.generate import open_domain
from latentplan.problems.minigsm.presets import SPLITS, Split


def pairs_hash(config: MinigsmConfig, *, split: Split, count: int, seed: int) -> str:
    """The hash of `count` problems and their counterfactuals, or of all that there are, and the number."""
    digest, done = hashlib.blake2b(digest_size=8), 0
    try:
        for pair in generate_pairs(config, split=split, count=count, seed=seed):
            digest.update(json.dumps([problem and problem.to_json() for problem in pair]).encode())
            done += 1
    except SpaceExhaustedError as exhausted:
        digest.update(str(exhausted).encode())
    return f"{digest.hexdigest()} {done}"


def hashes(count: int, story_count: int, seeds: int) -> Iterator[tuple[str, str]]:
    """(what was generated, its hash) for each preset, split and seed, then for each story."""
    for name, config in PRESETS.items():
        for split in SPLITS:
            for seed in range(seeds):
                yield f"{name} {split} {seed}", pairs_hash(config, split=split, count=count, seed=seed)
    for name in stories():
        config = replace(PRESETS["hard"], families=(name,), min_steps=3, max_steps=3)
        yield f"story {name}", pairs_hash(config, split="train", count=story_count, seed=0)


def stories() -> list[str]:
    """The names of all stories, in the order in which problems are drawn from them."""
    try:
        open_domain(replace(PRESETS["default"], families=()))
    except ValueError as error:
        return str(error).rpartition("known are ")[2].split(", ")
    raise AssertionError("a selection of no stories was accepted")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000, help="problems of each preset, split and seed")
    parser.add_argument("--story_count", type=int, default=200, help="problems of each story")
    parser.add_argument("--seeds", type=int, default=2, help="seeds from 0")
    arguments = parser.parse_args()
    for what, value in hashes(arguments.count, arguments.story_count, arguments.seeds):
        print(f"{what:<30} {value}", flush=True)


if __name__ == "__main__":
    main()
