"""The table of heads."""

from __future__ import annotations

from functools import partial

from autometa.heads.bd_cspn import bd_cspn, class_cosines
from autometa.heads.centroid import nearest_centroid
from autometa.heads.imprinted import imprinted_weights
from autometa.heads.knn import kernel_neighbours
from autometa.heads.laplacian import laplacian_shot, without_neighbours
from autometa.heads.logistic import logistic_regression
from autometa.heads.mahalanobis import mahalanobis
from autometa.heads.ot_map import ot_map, without_transport
from autometa.heads.plda import plda
from autometa.heads.qda import qda
from autometa.heads.ridge import ridge_regression
from autometa.heads.soft_kmeans import soft_kmeans, to_nearest_mean
from autometa.heads.spec import Categorical, HeadSpec, LogUniform
from autometa.heads.tim import tim

GENERATIVE = ("root_white", "root_white_long", "root_white_weak", "root_lda", "root_cl2n", "cl2n", "l2")
"""Metrics for heads that model densities: those whose prior is accurate."""

HEADS: dict[str, HeadSpec] = {
    "centroid": HeadSpec(nearest_centroid, {"metric": Categorical(("cosine", "euclidean"))}),
    "ot_map": HeadSpec(
        ot_map,
        {"sharpness": LogUniform(3.0, 40.0, 15.0), "step": Categorical((0.4, 0.3, 0.2))},
        needs_balance=True,
        counterpart=without_transport,
    ),
    "simpleshot": HeadSpec(nearest_centroid, transforms=("cl2n",)),
    "imprinted": HeadSpec(imprinted_weights),
    "ridge": HeadSpec(ridge_regression, {"strength": LogUniform(1e-2, 1e1, 0.5)}),
    "logistic": HeadSpec(logistic_regression, {"strength": LogUniform(1e-3, 1.0, 0.01)}),
    "plda": HeadSpec(plda, {"between_shrinkage": LogUniform(1e-2, 1.0, 0.5)}, GENERATIVE),
    "knn": HeadSpec(kernel_neighbours, {"sharpness": LogUniform(3.0, 100.0, 20.0)}),
    "soft_kmeans": HeadSpec(
        soft_kmeans, {"sharpness": LogUniform(1.0, 50.0, 5.0)}, counterpart=to_nearest_mean
    ),
    "bd_cspn": HeadSpec(
        bd_cspn,
        {"sharpness": LogUniform(0.5, 30.0, 3.0), "shift": Categorical((1.0, 0.0))},
        counterpart=class_cosines,
    ),
    "laplacian": HeadSpec(
        laplacian_shot,
        {"sharpness": LogUniform(5.0, 80.0, 20.0), "agreement": LogUniform(0.1, 3.0, 1.0)},
        counterpart=without_neighbours,
    ),
    "tim": HeadSpec(
        tim, {"sharpness": LogUniform(2.0, 50.0, 10.0)}, needs_balance=True, counterpart=to_nearest_mean
    ),
    "alpha_tim": HeadSpec(
        partial(tim, alpha=2.0), {"sharpness": LogUniform(2.0, 50.0, 10.0)}, counterpart=to_nearest_mean
    ),
    "mahalanobis": HeadSpec(
        mahalanobis, {"ridge": LogUniform(1e-2, 1e1, 0.1), "own": Categorical((1.0, 0.0))}
    ),
    "qda": HeadSpec(
        qda, {"dof": LogUniform(1e1, 1e4, 300.0), "mean_strength": LogUniform(1e-2, 1e1, 0.3)}, GENERATIVE
    ),
}
"""In the order of the search: the simplest one, then the most often best one, then the others from cheap to
expensive."""
