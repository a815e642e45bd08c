"""What people hand over as labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d


def check_labels(y: Any) -> NDArray[Any]:
    """Labels [n], which can be sorted. ValueError says what is wrong with them."""
    if y is None:
        raise ValueError("y = None: give the class of each image, names or numbers")
    labels = np.asarray(column_or_1d(y))
    if labels.dtype == object:
        for place, label in enumerate(labels):
            if label is None or label != label:  # noqa: PLR0124 - what is not a number
                raise ValueError(
                    f"y: label {place} is {label}; give the class of each image, or leave it out"
                )
        try:
            np.unique(labels)
        except TypeError as error:
            kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
            raise ValueError(
                f"y: labels of several kinds ({kinds}); give names alone or numbers alone"
            ) from error
    check_classification_targets(labels)
    return labels
