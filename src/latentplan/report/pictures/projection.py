"""Latents in the plane, several models in one picture: PCA, t-SNE, and UMAP where it is installed.

Needs scikit-learn (the extra `plot`), and umap-learn for UMAP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Projection = Callable[[Sequence[np.ndarray], bool, int], list[np.ndarray]]
"""Points `[rows, 2]` of each model, from its vectors `[rows, width]`, whether to fit on the first, a seed."""


def pca(parts: Sequence[np.ndarray], first_only: bool, seed: int) -> list[np.ndarray]:
    """The first two principal components of the first model's vectors, or of all together."""
    from sklearn.decomposition import PCA

    fitted = PCA(2, random_state=seed).fit(parts[0] if first_only else np.concatenate(parts))
    return [fitted.transform(part) for part in parts]


def tsne(parts: Sequence[np.ndarray], first_only: bool, seed: int) -> list[np.ndarray]:
    """t-SNE of all vectors together: it has no map for further points, so `first_only` changes nothing."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    every = np.concatenate(parts)
    reduced = PCA(min(50, *every.shape), random_state=seed).fit_transform(every)
    perplexity = min(30.0, (len(every) - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.split(points, np.cumsum([len(part) for part in parts])[:-1])


def umap(parts: Sequence[np.ndarray], first_only: bool, seed: int) -> list[np.ndarray]:
    """UMAP, fitted on the first model's vectors or on all."""
    from umap import UMAP

    every = parts[0] if first_only else np.concatenate(parts)
    fitted = UMAP(n_neighbors=min(15, len(every) - 1), random_state=seed, n_jobs=1).fit(every)
    return [fitted.transform(part) for part in parts]


PROJECTIONS: Mapping[str, Projection] = {"pca": pca, "tsne": tsne, "umap": umap}
"""By the name on the command line."""
TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
MIN_ROWS = 5
"""Latent steps that a projection needs."""
