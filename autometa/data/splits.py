"""Splitting the classes of a pool, or its whole datasets, into those to fit on and those to hold out."""

from __future__ import annotations

import numpy as np

from autometa.data.images import ImagePool, Rows

LEAST_SHARE = 0.5
"""When whole datasets are held out, either side must get this part of its share of the classes, or more."""


def split_classes(pool: ImagePool, held_out: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Class ids to fit on and class ids held out, ascending; each dataset is split at random.

    `held_out` is the share to hold out. Either side gets two classes or more of a dataset. If a dataset has fewer
    than four classes, all of them are held out.
    """
    fit, held = [], []
    for own in pool.classes_of_dataset:
        classes = rng.permutation(own)
        n_held = len(classes)
        if n_held >= 4:
            n_held = int(np.clip(held_out * n_held, 2, n_held - 2))
        held.append(classes[:n_held])
        fit.append(classes[n_held:])
    return np.sort(np.concatenate(fit)), np.sort(np.concatenate(held))


def split_datasets(pool: ImagePool, held_out: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Class ids to fit on and class ids held out, ascending; whole datasets are held out, drawn at random.

    `held_out` is the share of all classes to hold out, about. If either side would get less than half of its share,
    since there is only one dataset or one has most of the classes, this is `split_classes`.
    """
    large = np.flatnonzero(np.bincount(pool.labels, minlength=pool.classes) > 1)
    sizes = np.bincount(pool.dataset_of_class[large], minlength=len(pool.datasets))
    drawn = rng.permutation(np.flatnonzero(sizes > 1))
    shares = np.cumsum(sizes[drawn]) / max(len(large), 1)
    n_held = int(np.abs(shares - held_out).argmin()) + 1 if len(drawn) else 0
    held = np.isin(pool.dataset_of_class, drawn[:n_held])
    if min(held.mean() / held_out, (~held).mean() / (1 - held_out)) < LEAST_SHARE:
        return split_classes(pool, held_out, rng)
    return np.flatnonzero(~held), np.flatnonzero(held)
