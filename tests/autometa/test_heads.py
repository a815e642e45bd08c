"""One contract for every head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from autometa.heads import HEADS, TRANSFORMS, FeatureBatch, FeatureStatistics, apply_head
from autometa.heads.centroid import class_means

D = 24
STATISTICS = FeatureStatistics(torch.full((D,), 0.1))


class FirstGuess:
    """A trial that answers with the first guess."""

    def __init__(self, values: dict[str, object]) -> None:
        self.values = values

    def suggest_float(self, name: str, *_: object, **__: object) -> object:
        return self.values[name]

    def suggest_categorical(self, name: str, *_: object) -> object:
        return self.values[name]


def first_guess(head: str) -> dict[str, object]:
    spec = HEADS[head]
    return spec.suggest(FirstGuess(spec.first_guess))  # type: ignore[arg-type]


def episode(ways: int, shots: int, queries: int, seed: int = 0, scale: float = 1.0) -> FeatureBatch:
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(ways, D, generator=rng).abs()
    labels = torch.arange(ways).repeat(shots)
    support = centres[labels] + 0.5 * torch.randn(ways * shots, D, generator=rng)
    query = centres[torch.arange(queries) % ways] + 0.5 * torch.randn(queries, D, generator=rng)
    return FeatureBatch(support[None] * scale, labels[None], query[None] * scale, torch.tensor([ways]))


def scores_of(head: str, batch: FeatureBatch) -> torch.Tensor:
    return apply_head(head, first_guess(head), batch, STATISTICS)


def pad(batch: FeatureBatch, support: int, query: int) -> FeatureBatch:
    more_s, more_q = support - batch.support.shape[1], query - batch.query.shape[1]
    junk = torch.nn.functional.pad
    return FeatureBatch(
        junk(batch.support, (0, 0, 0, more_s), value=7.0),
        junk(batch.support_labels, (0, more_s), value=-1),
        junk(batch.query, (0, 0, 0, more_q), value=7.0),
        batch.ways,
    )


@pytest.mark.parametrize("head", HEADS)
class TestContract:
    def test_it_finds_clear_classes(self, head: str) -> None:
        scores = scores_of(head, episode(5, 5, 50))
        assert (scores.argmax(-1)[0] == torch.arange(50) % 5).float().mean() > 0.9

    def test_permuting_labels_permutes_scores(self, head: str) -> None:
        batch = episode(6, 3, 9)
        order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
        renamed = FeatureBatch(batch.support, order[batch.support_labels], batch.query, batch.ways)
        torch.testing.assert_close(
            scores_of(head, renamed)[..., order], scores_of(head, batch), rtol=1e-3, atol=1e-3
        )

    def test_order_of_the_support_does_not_matter(self, head: str) -> None:
        batch = episode(4, 5, 9)
        order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
        shuffled = FeatureBatch(
            batch.support[:, order], batch.support_labels[:, order], batch.query, batch.ways
        )
        torch.testing.assert_close(scores_of(head, shuffled), scores_of(head, batch), rtol=1e-3, atol=1e-3)

    def test_a_batch_equals_one_by_one(self, head: str) -> None:
        parts = [episode(3, 2, 5, seed=1), episode(7, 4, 11, seed=2)]
        padded = [pad(p, 28, 11) for p in parts]
        batch = FeatureBatch(
            *(
                torch.cat([getattr(p, f) for p in padded])
                for f in ("support", "support_labels", "query", "ways")
            )
        )
        together = scores_of(head, batch)
        for i, part in enumerate(parts):
            alone = scores_of(head, part)
            n, q = int(part.ways), part.query.shape[1]
            torch.testing.assert_close(together[i, :q, :n], alone[0], rtol=1e-3, atol=1e-3)
            assert (together[i, :, n:] == float("-inf")).all()

    @pytest.mark.parametrize(
        ("ways", "shots", "queries", "scale"),
        [(2, 1, 1, 1.0), (40, 1, 3, 1.0), (2, 20, 4, 1e-6), (5, 5, 5, 1e4), (3, 2, 6, 0.0)],
    )
    def test_extremes_give_numbers(
        self, head: str, ways: int, shots: int, queries: int, scale: float
    ) -> None:
        scores = scores_of(head, episode(ways, shots, queries, scale=scale))
        assert scores.shape == (1, queries, ways)
        assert scores.isfinite().all()

    @pytest.mark.parametrize("transform", TRANSFORMS)
    def test_it_takes_every_transform(self, head: str, transform: str) -> None:
        params = {**first_guess(head), "transform": transform}
        assert apply_head(head, params, episode(4, 3, 6), STATISTICS).isfinite().all()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="transform"):
        apply_head("centroid", {"transform": "magic"}, episode(2, 1, 1), None)
    with pytest.raises(ValueError, match="statistics"):
        apply_head("centroid", {"transform": "cl2n"}, episode(2, 1, 1), None)
    with pytest.raises(ValueError, match="metric"):
        apply_head("centroid", {"transform": "l2", "metric": "taxi"}, episode(2, 1, 1), None)


def test_two_class_centroid_is_the_closed_form_linear_classifier() -> None:
    batch = episode(2, 3, 7)
    means = class_means(batch)[0]
    weights, bias = 2 * means, -means.square().sum(1)
    expected = batch.query[0] @ weights.T + bias
    scores = apply_head("centroid", {"transform": "none", "metric": "euclidean"}, batch, None)
    torch.testing.assert_close(scores[0], expected)


def test_ridge_is_the_closed_form() -> None:
    batch = episode(3, 4, 6)
    support = batch.support[0].numpy()
    targets = np.eye(3)[batch.support_labels[0].numpy()] - 1 / 3
    weights = np.linalg.solve(support.T @ support + 0.5 * np.eye(D), support.T @ targets)
    scores = apply_head("ridge", {"transform": "none", "strength": 0.5}, batch, None)
    np.testing.assert_allclose(scores[0].numpy(), batch.query[0].numpy() @ weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("strength", [1e-3, 1e-2, 1e-1])
def test_logistic_agrees_with_scikit_learn(strength: float) -> None:
    batch = episode(5, 4, 200)
    unit = torch.nn.functional.normalize
    support, labels = unit(batch.support[0], dim=-1).numpy(), batch.support_labels[0].numpy()
    query = unit(batch.query[0], dim=-1).numpy()
    theirs = LogisticRegression(C=1 / (strength * len(labels)), fit_intercept=False, max_iter=5000, tol=1e-8)
    theirs.fit(support, labels)
    scores = apply_head("logistic", {"transform": "l2", "strength": strength}, batch, None)[0]
    ours = scores.softmax(-1).numpy()
    assert (ours.argmax(1) == theirs.predict(query)).mean() >= 0.99
    np.testing.assert_allclose(ours, theirs.predict_proba(query), atol=0.01)
