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
from autometa.heads.spec import HeadSpec
from autometa.heads.tim import tim, tim_without_queries

HEADS: dict[str, HeadSpec] = {
    "centroid": HeadSpec(nearest_centroid, {"metric": "cosine"}),
    "ot_map": HeadSpec(
        ot_map,
        {"sharpness": 15.0, "step": 0.4},
        needs_balance=True,
        counterpart=without_transport,
    ),
    "simpleshot": HeadSpec(nearest_centroid),
    "imprinted": HeadSpec(imprinted_weights),
    "ridge": HeadSpec(ridge_regression, {"strength": 0.5}),
    "logistic": HeadSpec(logistic_regression, {"strength": 0.01}),
    "plda": HeadSpec(plda, {"between_shrinkage": 0.5}),
    "knn": HeadSpec(kernel_neighbours, {"sharpness": 20.0}),
    "soft_kmeans": HeadSpec(soft_kmeans, {"sharpness": 5.0}, counterpart=to_nearest_mean),
    "bd_cspn": HeadSpec(
        bd_cspn,
        {"sharpness": 3.0, "shift": 1.0},
        counterpart=class_cosines,
    ),
    "laplacian": HeadSpec(
        laplacian_shot,
        {"sharpness": 20.0, "agreement": 1.0, "rectified": True},
        counterpart=without_neighbours,
    ),
    "tim": HeadSpec(
        tim,
        {
            "sharpness": 7.5,
            "support_weight": 0.1,
            "confidence": 0.1,
        },  # as published: 15·(1 - cos) is 7.5·|f-c|²
        needs_balance=True,
        counterpart=tim_without_queries,
    ),
    "alpha_tim": HeadSpec(partial(tim, alpha=2.0), {"sharpness": 10.0}, counterpart=tim_without_queries),
    "mahalanobis": HeadSpec(mahalanobis, {"ridge": 0.1, "own": 1.0}),
    "qda": HeadSpec(qda, {"dof": 300.0, "mean_strength": 0.3}),
}
"""The simplest one, then the most often best one, then the others from cheap to expensive."""
