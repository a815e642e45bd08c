"""The five metrics of the Cross-Domain MetaDL challenge, for one task.

Source: Carrion-Ojeda et al., "NeurIPS'22 Cross-Domain MetaDL competition", PMLR 191:24-37, 2022.

One difference from the original program, which averaged over the labels found in the truth *or* in the
prediction: here macro averages run over the classes that have query images. For every prediction that
passes `predictions.read_prediction` and every task of the challenge both give the same number.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Metric:
    """A metric: `key` in our JSON files, `title` as the original program prints it."""

    key: str
    title: str

    @property
    def slug(self) -> str:
        """The name in `scores.txt` and in the names of the plots: the title, lower case, underscores."""
        return self.title.lower().replace(" ", "_")


MAIN_METRIC = Metric("normalized_accuracy", "Normalized Accuracy")
METRICS = (
    MAIN_METRIC,
    Metric("accuracy", "Accuracy"),
    Metric("macro_f1", "Macro F1 Score"),
    Metric("macro_precision", "Macro Precision"),
    Metric("macro_recall", "Macro Recall"),
)


def task_metrics(truth: Labels, predicted: Labels, ways: int) -> dict[str, float]:
    """Score one task.

    `truth` and `predicted`: [n_query], labels 0 … `ways`-1, n_query ≥ 1, `ways` ≥ 2. Returns the value of
    each metric by its key. Normalized Accuracy is (macro recall − 1/ways) / (1 − 1/ways): 1 is perfect, 0
    is chance, worse than chance is negative. A class that is never predicted has precision and F1 of 0.
    """
    support = np.bincount(truth, minlength=ways).astype(np.float64)
    claimed = np.bincount(predicted, minlength=ways).astype(np.float64)
    hits = np.bincount(truth[truth == predicted], minlength=ways).astype(np.float64)
    present = support > 0
    recall = float(np.mean(_ratio(hits, support)[present]))
    return {
        "normalized_accuracy": (recall - 1 / ways) / (1 - 1 / ways),
        "accuracy": float(hits.sum() / len(truth)),
        "macro_f1": float(np.mean(_ratio(2 * hits, support + claimed)[present])),
        "macro_precision": float(np.mean(_ratio(hits, claimed)[present])),
        "macro_recall": recall,
    }


def chance_metrics(ways: int) -> dict[str, float]:
    """Return the metrics given to a task without a usable prediction: those of uniform guessing."""
    return {metric.key: 0.0 if metric == MAIN_METRIC else 1 / ways for metric in METRICS}


def _ratio(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide element by element, 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
