"""Which classes, or whole datasets, are held out."""

from __future__ import annotations

import numpy as np

from autometa.data.images import ImagePool, Rows

LEAST_SHARE = 0.5
"""Of its share of the classes, that either side has where whole datasets are held out."""


def split_classes(pool: ImagePool, held_out: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Class ids to fit on and class ids held out, split within each dataset; a dataset keeps at least two
    classes on either side, or all of them held out where it has fewer than four."""
    fit, held = [], []
    for dataset in range(len(pool.datasets)):
        classes = rng.permutation(np.flatnonzero(pool.dataset_of_class == dataset))
        n_held = (
            len(classes) if len(classes) < 4 else int(np.clip(held_out * len(classes), 2, len(classes) - 2))
        )
        held.append(classes[:n_held])
        fit.append(classes[n_held:])
    return np.sort(np.concatenate(fit)), np.sort(np.concatenate(held))


def split_datasets(pool: ImagePool, held_out: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Class ids to fit on and class ids held out, of whole datasets, drawn at random, that have about this share of
    all classes. As `split_classes` where either side would have less than half of its share: there is but one
    dataset, or one has most of the classes."""
    large = np.flatnonzero(np.bincount(pool.labels, minlength=pool.classes) > 1)
    sizes = np.bincount(pool.dataset_of_class[large], minlength=len(pool.datasets))
    drawn = rng.permutation(np.flatnonzero(sizes > 1))
    shares = np.cumsum(sizes[drawn]) / max(len(large), 1)
    n_held = int(np.abs(shares - held_out).argmin()) + 1 if len(drawn) else 0
    held = np.isin(pool.dataset_of_class, drawn[:n_held])
    if min(held.mean() / held_out, (~held).mean() / (1 - held_out)) < LEAST_SHARE:
        return split_classes(pool, held_out, rng)
    return np.flatnonzero(~held), np.flatnonzero(held)
