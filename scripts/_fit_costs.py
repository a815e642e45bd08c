"""Fitting the constants of engines to what `benchmarks/zoo.py` has measured: few numbers for all rows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from autometa.backbones import find_spec, kind_of
from autometa.backbones.costs import MIB, WEIGHT_BYTES, counts_at

TERMS = ("dense", "grouped", "traffic", "ops", "weights")
DOUBT = 0.5
"""So many rows' worth, a kind is taken to be as fast as all others."""
ROUNDS = 8
CONVERTED, LEAST_EXTRA = ("eva",), 50.0
"""Kinds that OpenVINO converts itself where they cannot be exported, and MiB from which on that is told apart."""


@dataclass(frozen=True)
class Measurement:
    """Of one row on an engine at a size: seconds for an image in relation to the reference, bytes at the peak."""

    name: str
    px: int
    seconds: float
    n_bytes: float
    batch: int

    @property
    def terms(self) -> list[float]:
        """What the seconds are made of."""
        spec = find_spec(self.name)
        counts = counts_at(spec, self.px)
        assert counts is not None, f"{self.name} is counted"
        return [*(getattr(counts, term) for term in TERMS[:-1]), spec.parameters_m]


def read(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Measurement]]:
    """The rows of a benchmark by engine."""
    found: dict[str, dict[tuple[str, int], dict[str, Any]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if "engine" in row:
            found[row["engine"]][row["backbone"], row["px"]] |= row["measured"]
    return {
        engine: [Measurement(name, px, **values) for (name, px), values in group.items() if values]
        for engine, group in found.items()
    }


def fit_seconds(found: Sequence[Measurement]) -> dict[str, Any]:
    """Seconds for each term, none below zero, and a factor for each kind, by least squares of relative errors."""
    kinds = [kind_of(one.name) for one in found]
    work = np.array([one.terms for one in found])
    measured = np.array([one.seconds for one in found])
    factors: dict[str, float] = {}
    costs: NDArray[np.float64] = np.zeros(len(TERMS))
    for _ in range(ROUNDS):
        scaled = work * np.array([factors.get(kind, 1.0) for kind in kinds])[:, None]
        costs, _ = nnls(scaled / measured[:, None], np.ones(len(found)))
        error = np.log(measured / np.maximum(work @ costs, 1e-12))
        for kind in sorted(set(kinds)):
            own = error[[place for place, each in enumerate(kinds) if each == kind]]
            factors[kind] = math.exp(float(own.sum()) / (len(own) + DOUBT))
    return {
        "seconds": {term: float(f"{cost:.3g}") for term, cost in zip(TERMS, costs, strict=True)},
        "kinds": {kind: round(factor, 2) for kind, factor in factors.items()},
    }


def fit_bytes(found: Sequence[Measurement], chunk: int) -> dict[str, Any]:
    """MiB that an engine takes by itself, copies of the weights, and how much lives at a time in relation to what was
    counted; further MiB of the kinds that are converted in another way (`extra`)."""
    usual = [one for one in found if kind_of(one.name) not in CONVERTED]
    target = np.array([one.n_bytes for one in usual])
    parts = np.array([_bytes_of(one, chunk) for one in usual])
    values, _ = nnls(parts / target[:, None], np.ones(len(target)))
    extra = {}
    for kind in CONVERTED:
        over = [
            one.n_bytes - float(values @ _bytes_of(one, chunk)) for one in found if kind_of(one.name) == kind
        ]
        if over and (further := median(over) / MIB) > LEAST_EXTRA:
            extra[kind] = float(f"{further:.3g}")
    fixed, copies, activations = (float(f"{value:.3g}") for value in values)
    return {"fixed": fixed, "copies": copies, "activations": activations, "chunk": chunk, "extra": extra}


def _bytes_of(one: Measurement, chunk: int) -> NDArray[np.float64]:
    """A MiB, the weights, and what lives at a time."""
    spec = find_spec(one.name)
    counts = counts_at(spec, one.px)
    assert counts is not None, f"{one.name} is counted"
    images = min(one.batch, chunk or one.batch)
    return np.array([MIB, WEIGHT_BYTES * 1e6 * spec.parameters_m, MIB * counts.peak * images])


def left_out_errors(found: Sequence[Measurement]) -> dict[str, float]:
    """Predicted in relation to measured seconds of each row, from constants that were fitted to all other rows."""
    ratios: dict[str, float] = {}
    for name in sorted({one.name for one in found}):
        fitted = fit_seconds([one for one in found if one.name != name])
        own = []
        for one in found:
            if one.name == name:
                costs = np.array(list(fitted["seconds"].values()))
                predicted = float(costs @ np.array(one.terms)) * fitted["kinds"].get(kind_of(name), 1.0)
                own.append(predicted / one.seconds)
        ratios[name] = fmean(own)
    return ratios


def describe(ratios: Mapping[str, float]) -> str:
    """How good predictions are, for people."""
    values = sorted(ratios.values())
    within = sum(0.7 <= value <= 1.3 for value in values)
    return f"median {median(values):.2f}, {values[0]:.2f} to {values[-1]:.2f}, {within} of {len(values)} within 30 %"
