"""Heads against references: NumPy, SciPy and scikit-learn, one episode at a time, in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from head_cases import episode, padded, prior
from scipy import stats
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from autometa.heads import FeatureBatch, Prior
from autometa.heads.joint import Joint
from autometa.heads.logistic import logistic_regression
from autometa.heads.mahalanobis import mahalanobis
from autometa.heads.ot_map import ot_map, transport
from autometa.heads.plda import plda
from autometa.heads.qda import qda
from autometa.heads.ridge import ridge_regression


def centred(batch: FeatureBatch) -> FeatureBatch:
    """Support and query each less its own mean."""
    support, query = (
        batch.support - batch.support.mean(1, keepdim=True),
        batch.query - batch.query.mean(1, keepdim=True),
    )
    return replace(batch, support=support, query=query)


def arrays(batch: FeatureBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return (
        batch.support[0].double().numpy(),
        batch.support_labels[0].numpy(),
        batch.query[0].double().numpy(),
    )


def reference_sinkhorn(logits: np.ndarray, rounds: int) -> np.ndarray:
    plan = logits.astype(np.float64)
    for _ in range(rounds):
        plan = plan - logsumexp(plan, axis=1, keepdims=True)
        plan = plan - logsumexp(plan, axis=0, keepdims=True) + np.log(plan.shape[0] / plan.shape[1])
    return plan - logsumexp(plan, axis=1, keepdims=True)


def test_transport_equals_reference_and_has_its_marginals() -> None:
    batches = [episode(5, 3, 15)[0], episode(3, 2, 4, seed=1)[0]]
    batch = padded(batches).cleaned()
    joint = Joint.of(batch, centred=True)
    logits = -10 * joint.distances(joint.class_means)
    plan, _ = transport(logits, joint, torch.zeros_like(logits[..., :1]), 100)
    s = batch.support.shape[1]
    for place, one in enumerate(batches):
        n, q = int(one.ways), one.query.shape[1]
        ours = plan[place, :n, s : s + q].T.double().numpy()
        reference = reference_sinkhorn(logits[place, :n, s : s + q].T.numpy(), 100)
        np.testing.assert_allclose(np.exp(ours), np.exp(reference), atol=2e-5)
        np.testing.assert_allclose(np.exp(ours).sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(np.exp(ours).sum(0), q / n, atol=1e-2)


def test_ot_map_assigns_equal_shares_and_helps() -> None:
    gains = []
    for seed in range(20):
        batch, labels = episode(5, 1, 15, seed=seed, spread=1.0)
        scores = ot_map(batch)[0]
        np.testing.assert_allclose(scores.exp().sum(0), 15, atol=0.15)
        apart = centred(batch).unit()
        plain = (apart.query[0] @ apart.support[0].T).argmax(-1)
        gains.append(((scores.argmax(-1) == labels).float() - (plain == labels).float()).mean())
    assert float(np.mean(gains)) > 0.02


@pytest.mark.parametrize("strength", [1e-3, 1e-2, 1e-1])
@pytest.mark.parametrize(("ways", "shots", "spread"), [(5, 1, 0.7), (5, 5, 1.5), (20, 5, 1.0)])
def test_logistic_equals_scikit_learn(ways: int, shots: int, spread: float, strength: float) -> None:
    batch = episode(ways, shots, 10, spread=spread)[0].unit()
    support, labels, query = arrays(batch)
    model = LogisticRegression(C=1 / (strength * len(support)), max_iter=2000, tol=1e-8).fit(support, labels)
    scores = logistic_regression(batch, strength=strength)[0]
    assert (scores.argmax(-1).numpy() == model.predict(query)).mean() >= 0.99
    theirs = model.decision_function(query)
    np.testing.assert_allclose(
        scores.softmax(-1), np.exp(theirs - logsumexp(theirs, 1, keepdims=True)), atol=5e-3
    )


def test_ridge_equals_normal_equations() -> None:
    batch, _ = episode(4, 3, 5)
    support, labels, query = arrays(batch)
    targets = np.eye(4)[labels] - 0.25
    weights = np.linalg.solve(support.T @ support + 2.0 * np.eye(24), support.T @ targets)
    np.testing.assert_allclose(ridge_regression(batch, strength=2.0)[0], query @ weights, atol=1e-3)


@pytest.mark.parametrize(("shots", "own", "d"), [(1, 1.0, 64), (4, 1.0, 64), (4, 0.0, 64), (6, 1.0, 10)])
def test_mahalanobis_equals_loop(shots: int, own: float, d: int) -> None:
    batch, _ = episode(4, shots, 5, d=d)
    support, labels, query = arrays(batch)
    overall = np.cov(support.T)
    floor = 1e-6 * np.square(query).sum() / len(query)
    expected = []
    for c in range(4):
        members = support[labels == c]
        share = own * shots / (shots + 1)
        spread = np.cov(members.T) if shots > 1 else np.zeros((d, d))
        matrix = share * spread + (1 - share) * overall + (0.3 * np.trace(overall) + floor) * np.eye(d)
        difference = query - members.mean(0)
        expected.append(-0.5 * np.einsum("qi,ij,qj->q", difference, np.linalg.inv(matrix), difference))
    ours = mahalanobis(batch, ridge=0.3, own=own)[0].double().numpy()
    wanted = np.stack(expected, 1)
    # what is common to all classes may differ
    np.testing.assert_allclose(ours - ours[:, :1], wanted - wanted[:, :1], atol=2e-3)


def uneven(d: int) -> tuple[list[FeatureBatch], FeatureBatch]:
    """Episodes of any ways with any shots for each class, alone and padded to one batch."""
    alone = []
    for seed, (ways, shots) in enumerate([(2, 1), (5, 4), (3, 3), (12, 1), (7, 10)]):
        batch = episode(ways, shots, 3, seed=seed, d=d, spread=1.0)[0]
        place = torch.arange(ways * shots) % shots
        limit = torch.tensor([shots, 1, 2])[batch.support_labels[0] % 3] if seed > 2 else torch.tensor(shots)
        kept = place < limit
        batch = replace(batch, support=batch.support[:, kept], support_labels=batch.support_labels[:, kept])
        alone.append(batch.unit())
    return alone, padded(alone).cleaned()


def with_products(batch: FeatureBatch) -> FeatureBatch:
    """The batch as it is where looking inner products up is cheaper; its padding must not matter."""
    both = torch.cat([batch.support, batch.query], dim=1)
    real = torch.cat([batch.support_mask, batch.query_mask], dim=1)
    products = both @ both.transpose(1, 2) + 9.0 * ~(real[:, :, None] & real[:, None, :])
    return replace(batch, products=lambda: products)


def direct_mahalanobis(batch: FeatureBatch, ridge: float, own: float) -> np.ndarray:
    """Scores [q, n] of one episode by the inverse of every covariance."""
    support, labels, query = arrays(batch)
    overall, d = np.cov(support.T), support.shape[1]
    floor, scores = 1e-6 * np.square(query).sum() / len(query), []
    for c in range(int(batch.ways)):
        members = support[labels == c]
        share = own * len(members) / (len(members) + 1)
        spread = np.cov(members.T) if len(members) > 1 else np.zeros((d, d))
        matrix = share * spread + (1 - share) * overall + (ridge * np.trace(overall) + floor) * np.eye(d)
        difference = query - members.mean(0)
        scores.append(-0.5 * (difference * np.linalg.solve(matrix, difference.T).T).sum(1))
    return np.stack(scores, 1)


@pytest.mark.medium
@pytest.mark.parametrize("looked_up", [False, True])
@pytest.mark.parametrize("d", [10, 300])
@pytest.mark.parametrize(
    ("ridge", "own"), [(1e-3, 0.0), (1e-3, 1.0), (0.01, 1.0), (0.1, 0.5), (0.1, 0.0), (10.0, 1.0)]
)
def test_mahalanobis_of_uneven_episodes_equals_direct_formula(
    d: int, ridge: float, own: float, looked_up: bool
) -> None:
    alone, batch = uneven(d)
    ours = mahalanobis(with_products(batch) if looked_up else batch, ridge=ridge, own=own).double().numpy()
    for place, one in enumerate(alone):
        wanted = direct_mahalanobis(one, ridge, own)
        found = ours[place, : one.query.shape[1], : int(one.ways)]
        # what is common to all classes may differ
        wanted, found = (v - v.mean(1, keepdims=True) for v in (wanted, found))
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("looked_up", [False, True])
@pytest.mark.parametrize("d", [10, 300])
def test_ridge_of_uneven_episodes_equals_normal_equations(d: int, looked_up: bool) -> None:
    alone, batch = uneven(d)
    ours = ridge_regression(with_products(batch) if looked_up else batch, strength=0.5).double().numpy()
    for place, one in enumerate(alone):
        support, labels, query = arrays(one)
        targets = np.eye(int(one.ways))[labels] - 1 / int(one.ways)
        wanted = query @ np.linalg.solve(support.T @ support + 0.5 * np.eye(d), support.T @ targets)
        found = ours[place, : len(query), : int(one.ways)]
        np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("shots", [1, 4])
def test_qda_equals_student_t(shots: int) -> None:
    known = prior()
    batch = replace(episode(3, shots, 5)[0], prior=known)
    support, labels, query = arrays(batch)
    d, dof = 24, 50.0
    kappa0 = 0.7 * float(known.within.sum() / known.between.sum())
    mean0, psi0 = known.mean.double().numpy(), dof * np.diag(known.within.double().numpy())
    expected = []
    for c in range(3):
        members = support[labels == c]
        mean, kappa, nu = members.mean(0), kappa0 + shots, dof + d + 1 + shots
        centre = (kappa0 * mean0 + shots * mean) / kappa
        psi = psi0 + (members - mean).T @ (members - mean)
        psi += kappa0 * shots / kappa * np.outer(mean - mean0, mean - mean0)
        tail = nu - d + 1
        expected.append(stats.multivariate_t(centre, psi * (kappa + 1) / (kappa * tail), tail).logpdf(query))
    ours = qda(batch, dof=dof, mean_strength=0.7)[0].double().numpy()
    wanted = np.stack(expected, 1)
    np.testing.assert_allclose(ours - ours[:, :1], wanted - wanted[:, :1], atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("shots", [1, 2, 5])
def test_plda_equals_gaussian_conditioning(shots: int) -> None:
    known = Prior(torch.linspace(-1, 1, 6), torch.linspace(0.5, 2, 6), torch.linspace(3, 0.1, 6))
    batch = replace(episode(3, shots, 4, d=6)[0], prior=known)
    support, labels, query = arrays(batch)
    mean, within, between = (v.double().numpy() for v in (known.mean, known.within, known.between))
    between = 0.8 * between + 0.2 * between.mean()
    # images of a class and the query are jointly Gaussian: condition on the former
    shared = np.kron(np.ones((shots + 1, shots + 1)), np.diag(between))
    joint = shared + np.kron(np.eye(shots + 1), np.diag(within))
    seen = 6 * shots
    gain = joint[seen:, :seen] @ np.linalg.inv(joint[:seen, :seen])
    covariance = joint[seen:, seen:] - gain @ joint[:seen, seen:]
    expected = []
    for c in range(3):
        centre = mean + gain @ (support[labels == c] - mean).ravel()
        expected.append([stats.multivariate_normal(centre, covariance).logpdf(x) for x in query])
    ours = plda(batch, between_shrinkage=0.2)[0].double().numpy() - 3 * math.log(2 * math.pi)
    np.testing.assert_allclose(ours, np.array(expected).T, atol=1e-3)


def test_transport_keeps_its_marginals_when_distances_are_extreme() -> None:
    joint = Joint.of(episode(5, 3, 15)[0], centred=True)
    logits = -2000 * joint.distances(joint.class_means)
    plan, potential = transport(logits, joint, torch.zeros_like(logits[..., :1]), 2000)
    shares = plan[0, :, 15:].exp()
    assert bool(potential.isfinite().all())
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(shares.sum(1), 15, atol=0.1)
