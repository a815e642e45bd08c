"""Base classes of a submission (module `api` of the Cross-Domain MetaDL format).

A submission's `model.py` says `from api import MetaLearner, Learner, Predictor` and defines
`MyMetaLearner` and `MyLearner`. This module is imported as `api` unless the bundle has its own.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    Generator = Callable[[int], Iterator[Any]]
    SupportSet = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int, int]


class Predictor(abc.ABC):
    """Labels the query images of one task."""

    def __init__(self) -> None:
        pass

    @abc.abstractmethod
    def predict(self, query_set: torch.Tensor) -> np.ndarray:
        """Query images, float32 [ways * queries, 3, px, px] in [0, 1] → scores [ways * queries, ways]
        (probabilities or logits), or labels [ways * queries] in 0..ways-1."""


class Learner(abc.ABC):
    """The result of meta-training: it is saved once and loaded again for every task."""

    def __init__(self) -> None:
        pass

    @abc.abstractmethod
    def fit(self, support_set: SupportSet) -> Predictor:
        """(images float32 [ways * shots, 3, px, px], labels int64, original labels int64, ways, shots)
        → the predictor of this task."""

    @abc.abstractmethod
    def save(self, path_to_save: str) -> None:
        """Write everything that `load` needs into the existing folder `path_to_save`."""

    @abc.abstractmethod
    def load(self, path_to_load: str) -> None:
        """Restore what `save` wrote; called on an instance made without arguments."""


class MetaLearner(abc.ABC):
    """Learns to learn from the meta-training data."""

    def __init__(self, train_classes: int | None, total_classes: int, logger: Any) -> None:
        """`train_classes`: ways of every training task (None if they vary), or all classes in batch
        mode; `total_classes`: classes of the training datasets together; `logger.log` writes `logs/`."""
        self.train_classes = train_classes
        self.total_classes = total_classes
        self.log = logger.log

    @abc.abstractmethod
    def meta_fit(self, meta_train_generator: Generator, meta_valid_generator: Generator | None) -> Learner:
        """`meta_train_generator(n)` yields n tasks (or n batches [images, labels] in batch mode);
        `meta_valid_generator(n)` yields n tasks, or is None if the bundle asks for no validation datasets."""
