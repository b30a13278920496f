"""Problems that a seed draws stay equal, digit for digit, whatever becomes of the code.

`minigsm_hashes.txt` was written by `benchmarks/minigsm_hashes.py` when the stories were still Python code.
"""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXPECTED = dict(
    line.rsplit(maxsplit=2)[:2] for line in (HERE / "minigsm_hashes.txt").read_text().splitlines()
)


@pytest.fixture(scope="module")
def hashes():
    sys.path.insert(0, str(HERE.parents[1] / "benchmarks"))
    try:
        import minigsm_hashes
    finally:
        sys.path.pop(0)
    return minigsm_hashes


def test_problems_chains_and_counterfactuals_are_those_of_before(hashes):
    found = {what: value.split()[0] for what, value in hashes.hashes(count=20, story_count=5, seeds=2)}
    assert found == EXPECTED


def test_the_hash_sees_words_chains_and_counterfactuals(hashes, monkeypatch):
    config = hashes.PRESETS["default"]
    plain = hashes.pairs_hash(config, split="train", count=5, seed=0)
    assert plain == hashes.pairs_hash(config, split="train", count=5, seed=0)
    pairs = list(hashes.generate_pairs(config, split="train", count=5, seed=0))
    (problem, partner), rest = pairs[0], pairs[1:]
    for changed in (
        (hashes.replace(problem, question=problem.question + " "), partner),
        (hashes.replace(problem, plans=problem.plans[:-1]), partner),
        (problem, None),
    ):
        monkeypatch.setattr(
            hashes, "generate_pairs", lambda *_, changed=changed, **__: iter([changed, *rest])
        )
        assert hashes.pairs_hash(config, split="train", count=5, seed=0) != plain
