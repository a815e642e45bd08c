"""The logger that a MetaLearner gets: one printed line and the files of the format under `logs/`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def task_metrics(labels: NDArray[np.int64], predictions: NDArray[Any], ways: int | None) -> dict[str, float]:
    """The format's metrics of one task or batch (`ways` is None for a batch, which has no Normalized Accuracy). Macro
    averages run over the classes found in `labels` or answered, as in the original."""
    chosen = predictions.argmax(axis=1) if predictions.ndim == 2 else predictions.astype(np.int64)
    classes, rows = np.unique(np.concatenate([labels, chosen]), return_inverse=True)
    truth, claims = rows[: len(labels)], rows[len(labels) :]
    support, claimed, hits = (
        np.bincount(each, minlength=len(classes)) for each in (truth, claims, truth[truth == claims])
    )
    recall = float(np.mean(hits / np.maximum(support, 1)))
    metrics = {
        "Accuracy": float(hits.sum() / len(labels)),
        "Macro F1 Score": float(np.mean(2 * hits / (support + claimed))),
        "Macro Precision": float(np.mean(hits / np.maximum(claimed, 1))),
        "Macro Recall": recall,
    }
    if ways is None:
        return metrics
    return {"Normalized Accuracy": float((recall - 1 / ways) / (1 - 1 / ways)), **metrics}


def _as_array(values: Any) -> NDArray[Any]:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


class Logger:
    """Writes `meta_train/` (an iteration per call) and `meta_validation/step_N/` under `folder`.

    Tasks differ from batches by their attributes, so that the task class of a bundle works too.
    """

    def __init__(self, folder: Path, *, verbose: bool = True) -> None:
        self._folder = folder
        self._verbose = verbose
        self._iteration = 0
        self._step = 1
        self._validating = False

    def log(self, data: Any, predictions: Any, loss: float | None = None, meta_train: bool = True) -> None:
        """`data`: the task or batch [images, labels] that was answered; `predictions`: scores [n, ways] or
        labels [n]; `meta_train` False: a validation step, which ends at the next meta-train call."""
        is_task = hasattr(data, "query_set")
        labels = _as_array(data.query_set[1] if is_task else data[1])
        scores = _as_array(predictions)
        metrics = task_metrics(labels, scores, int(data.num_ways) if is_task else None)
        if loss is not None:
            metrics["Loss"] = float(loss)
        if meta_train:
            self._step += self._validating
            self._iteration += 1
            folder = self._folder / "meta_train"
            self._dump(folder / "ground_truth", labels)
            self._dump(folder / "predictions", scores)
        else:
            folder = self._folder / "meta_validation" / f"step_{self._step}"
        self._validating = not meta_train
        _append(folder / "performance.csv", metrics)
        task = (
            f"[{data.num_ways}-way {data.num_shots}-shot task from {data.dataset}]" if is_task else "[batch]"
        )
        if is_task:
            row = {
                "Dataset": data.dataset,
                "N": data.num_ways,
                "k": data.num_shots,
            }
            _append(folder / "tasks.csv", row)
        if self._verbose:
            kind = "meta-train" if meta_train else "meta-validation"
            print(f"{kind} " + " ".join(f"{n}: {v:.3f}" for n, v in metrics.items()) + f" {task}", flush=True)

    def _dump(self, folder: Path, values: NDArray[Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        np.savetxt(
            folder / f"iteration_{self._iteration}.out", values, fmt="%f" if values.ndim == 2 else "%d"
        )


def _append(file: Path, row: dict[str, Any]) -> None:
    """Add a row; the columns are those of the first one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerow(row)
    with file.open("r+", newline="") as stream:
        columns = next(csv.reader(stream))
        stream.seek(0, 2)
        csv.writer(stream).writerow([row.get(name, "") for name in columns])
