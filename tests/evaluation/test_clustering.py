from __future__ import annotations

import numpy as np
import pytest

from latentplan.evaluation.latent_table import MAX_CLASSES, clustering, main_classes

pytest.importorskip("sklearn")


def blobs(distance: float, rows: int = 120) -> tuple[np.ndarray, list[str], list[int]]:
    chance = np.random.default_rng(0)
    labels = [str(place % 3) for place in range(rows)]
    centres = distance * np.eye(8)[[int(label) for label in labels]]
    return centres + chance.normal(size=(rows, 8)), labels, [place // 2 for place in range(rows)]


def test_separate_classes_score_high_and_shuffled_ones_by_chance():
    found = clustering(*blobs(distance=20.0))
    assert (found.points, found.classes) == (120, 3)
    assert found.silhouette > 0.7
    assert found.probe == 1.0
    assert abs(found.silhouette_shuffled) < 0.1
    assert 0.15 < found.probe_shuffled < 0.55


def test_noise_is_as_good_as_shuffled_labels():
    found = clustering(*blobs(distance=0.0))
    assert abs(found.silhouette) < 0.05
    assert 0.15 < found.probe < 0.55


def test_a_problem_is_never_in_training_and_test():
    # Every problem has a direction of its own and a random label: only a leak could find the label.
    chance = np.random.default_rng(1)
    problems = 60
    vectors = np.repeat(10 * chance.normal(size=(problems, 64)), 4, axis=0)
    labels = [str(label) for label in np.repeat(chance.integers(0, 2, problems), 4)]
    groups = [place // 4 for place in range(4 * problems)]
    assert clustering(vectors, labels, groups).probe < 0.75


def test_a_rare_class_that_can_be_told_is_found():
    labels = ["rare" if place % 10 == 0 else "usual" for place in range(200)]
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(200, 4)) + np.array(
        [[1.5 * (label == "rare")] + [0] * 3 for label in labels]
    )
    assert clustering(vectors, labels, list(range(200))).probe > 0.65


def test_classes_of_few_problems_are_left_out():
    labels = ["a"] * 10 + ["b"] * 10 + ["c"] * 40 + [None] * 5
    groups = [*range(20), *([99] * 40), *range(5)]
    assert main_classes(labels, groups) == ["a", "b"]


def test_only_the_most_frequent_classes_are_measured():
    labels = [str(place) for place in range(MAX_CLASSES + 3) for _ in range(10 + place)]
    classes = main_classes(labels, list(range(len(labels))))
    assert len(classes) == MAX_CLASSES
    assert classes[0] == str(MAX_CLASSES + 2)
    assert "0" not in classes


def test_nothing_to_measure():
    vectors, _, groups = blobs(1.0)
    assert clustering(vectors, ["a"] * 120, groups) is None
    assert clustering(np.ones((120, 8)), [str(place % 2) for place in range(120)], groups) is None
