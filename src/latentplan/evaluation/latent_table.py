"""`LatentTable`: the latent steps of a model on a set of problems, as arrays and rows without tensors.

`evaluation.collect_latents` fills it and pictures are drawn from it. A *latent step* is the c latents that
stand for one step of the chain, one after another in one vector. `Clustering` says how well they are ordered
by a label: a silhouette and a linear probe, each with that of shuffled labels (this needs scikit-learn, the
extra `plot`).
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latentplan.problems.answers import AnswerKind, kind_of


@dataclass(frozen=True)
class LatentRow:
    """One latent step that was used.

    Attributes:
        problem: index of its problem in the set.
        step: its number in the chain, from 1.
        text: what it says: as decoded, or of a model without a decoder the labelled step of this number; None
            where neither is there.
        sigma: its σ, the mean over dimensions; None where latents are points.
        correct: whether the answer after its chain is correct.
    """

    problem: int
    step: int
    text: str | None
    sigma: float | None
    correct: bool


@dataclass(frozen=True)
class StopRow:
    """One decision of the stop head.

    Attributes:
        problem: index of the problem in the set.
        step: the latent step before which the stop head decided, from 1.
        probability: of stopping there.
        needed: labelled steps of the problem, at most K; 0 where there is no labelled chain.
    """

    problem: int
    step: int
    probability: float
    needed: int


@dataclass(frozen=True)
class SolvedProblem:
    """A problem with the model's answer and plan.

    Attributes:
        question: in words.
        reference: the correct answer.
        answer: the predicted one; None where there is none.
        correct: whether they match.
        plan: the decoded steps; None without a decoder.
        modulus: of clock arithmetic, else None.
        answer_kind: the kind of answer, where the problem names one.
    """

    question: str
    reference: str
    answer: str | None
    correct: bool
    plan: list[str] | None
    modulus: int | None
    answer_kind: str | None = None

    @property
    def kind(self) -> AnswerKind:
        """The kind of answer."""
        return kind_of(self.reference, self.answer_kind)


@dataclass(frozen=True)
class LatentTable:
    """The latent steps of one model.

    Attributes:
        rows: one for each latent step.
        vectors: `[rows, c · hidden]` float32, the latents as used.
        means: `[rows, c · hidden]` float32, the μ that they were drawn around.
        stops: one for each decision of the stop head; empty without one.
        problems: the problems, in their order.
        decoded: whether the rows' texts come from a step decoder, rather than from labelled chains.
    """

    rows: Sequence[LatentRow]
    vectors: np.ndarray
    means: np.ndarray
    stops: Sequence[StopRow]
    problems: Sequence[SolvedProblem]
    decoded: bool

    def of_problems(self, indices: Sequence[int]) -> LatentTable:
        """Returns the latent steps of these problems only; `stops` and `problems` stay whole."""
        wanted = set(indices)
        kept = [index for index, row in enumerate(self.rows) if row.problem in wanted]
        return LatentTable(
            [self.rows[index] for index in kept],
            self.vectors[kept],
            self.means[kept],
            self.stops,
            self.problems,
            self.decoded,
        )

    def spread(self, step: int) -> float | None:
        """Computes the standard deviation of μ between problems at a step, the mean over dimensions; None of
        one row.
        """
        at = [index for index, row in enumerate(self.rows) if row.step == step]
        return float(self.means[at].std(axis=0).mean()) if len(at) > 1 else None


MAX_CLASSES = 12
"""The most frequent classes that are measured and drawn."""
MIN_PROBLEMS = 10
"""Problems that a class needs: two for each fold."""
_FOLDS, _COMPONENTS = 5, 64


@dataclass(frozen=True)
class Clustering:
    """Two numbers for the order of a set of vectors by a label.

    Attributes:
        points: vectors of the classes that were measured.
        classes: how many there are.
        silhouette: mean silhouette in the original space, by Euclidean distance; from -1 to 1.
        silhouette_shuffled: the same with the labels shuffled.
        probe: balanced accuracy of logistic regression, with classes weighted equally, on the first 64
            principal components, by 5-fold cross-validation in which a problem is never on both sides.
        probe_shuffled: the same with the labels shuffled, near 1 / classes.
    """

    points: int
    classes: int
    silhouette: float
    silhouette_shuffled: float
    probe: float
    probe_shuffled: float


def main_classes(labels: Sequence[str | None], groups: Sequence[int]) -> list[str]:
    """Returns the most frequent classes, at most 12, among those of at least 10 groups (problems)."""
    rows: dict[str, list[int]] = defaultdict(list)
    for label, group in zip(labels, groups, strict=True):
        if label is not None:
            rows[label].append(group)
    enough = [label for label, of in rows.items() if len(set(of)) >= MIN_PROBLEMS]
    return sorted(enough, key=lambda label: (-len(rows[label]), label))[:MAX_CLASSES]


def clustering(
    vectors: np.ndarray, labels: Sequence[str | None], groups: Sequence[int], seed: int = 0
) -> Clustering | None:
    """Returns both numbers for vectors `[rows, width]`; None with fewer than two classes, or where all are
    equal.

    Args:
        vectors: the latents.
        labels: the class of each; None where it has none. Only `main_classes` are measured.
        groups: the problem of each.
        seed: of the shuffling and the folds.

    Raises:
        ImportError: scikit-learn is missing.
    """
    classes = main_classes(labels, groups)
    kept = [index for index, label in enumerate(labels) if label in classes]
    if len(classes) < 2 or np.ptp(vectors[kept], axis=0).max() == 0:
        return None
    chosen, names = vectors[kept], np.array([labels[index] for index in kept])
    shuffled = np.random.default_rng(seed).permutation(names)
    of = np.array([groups[index] for index in kept])
    return Clustering(
        points=len(kept),
        classes=len(classes),
        silhouette=_silhouette(chosen, names),
        silhouette_shuffled=_silhouette(chosen, shuffled),
        probe=_probe(chosen, names, of, seed),
        probe_shuffled=_probe(chosen, shuffled, of, seed),
    )


def _silhouette(vectors: np.ndarray, labels: np.ndarray) -> float:
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(vectors, labels))


def _probe(vectors: np.ndarray, labels: np.ndarray, groups: np.ndarray, seed: int) -> float:
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # The smallest training fold bounds the components.
    components = min(_COMPONENTS, vectors.shape[1], len(vectors) * (_FOLDS - 1) // _FOLDS // 2)
    probe = make_pipeline(
        StandardScaler(),
        PCA(components, random_state=seed),
        LogisticRegression(max_iter=300, class_weight="balanced"),
    )
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of iterations, and of classes that a fold lacks
        predicted = cross_val_predict(probe, vectors, labels, groups=groups, cv=folds)
        return float(balanced_accuracy_score(labels, predicted))
