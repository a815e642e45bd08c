"""Training episodes out of pools and out of streams of tasks."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from learner_cases import labels_only, pool_source, red_pool

from autometa.core.errors import ConfigError, DataError
from autometa.core.settings import validate_settings
from autometa.data.episodes import EpisodeBatch, EpisodeSpec
from autometa.data.images import Rows
from autometa.learners.augmentation import Augmentation
from autometa.learners.episodes import EpisodeSampler, TaskSource, draw_subset, stack_episodes
from autometa.learners.recipe import Recipe

ALMOST_SURELY = 5.0
"""Standard deviations that a fair draw does not stray in tests with a fixed seed."""


@dataclass
class Drawn:
    """Rows of everything that was drawn, and the class that each should be of [b, m]."""

    batch: EpisodeBatch
    unlabelled: torch.Tensor

    @property
    def rows(self) -> torch.Tensor:
        return torch.cat([self.batch.support_rows, self.batch.query_rows, self.unlabelled], dim=1)

    def labels_of(self, pool_labels: Rows) -> torch.Tensor:
        return torch.from_numpy(pool_labels)[self.rows]


def sampler_of(
    sizes: list[int], datasets: list[int], spec: EpisodeSpec, *, seed: int = 0, unlabelled: int = 0
) -> tuple[EpisodeSampler, Rows]:
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rng = np.random.default_rng(seed)
    return EpisodeSampler(
        labels_only(labels, np.array(datasets)), np.arange(len(sizes)), spec, rng, unlabelled
    ), labels


def spec_of(ways: tuple[int, int], shots: tuple[int, int], queries: int) -> EpisodeSpec:
    return EpisodeSpec(ways=ways, shots=shots, queries_per_class=queries)


def is_fair(counts: torch.Tensor) -> bool:
    """Whether counts of equally likely outcomes are as even as chance would have them."""
    expected = counts.double().mean()
    return bool(((counts - expected).abs() < ALMOST_SURELY * expected.sqrt()).all())


def test_rows_are_of_the_class_that_their_label_stands_for() -> None:
    sampler, labels = sampler_of([9] * 8, [0] * 4 + [1] * 4, spec_of((2, 4), (1, 3), 2), unlabelled=2)
    for _ in range(40):
        drawn = Drawn(*sampler.draw(3))
        ways = int(drawn.batch.ways[0])
        spare = torch.arange(ways).repeat_interleave(drawn.unlabelled.shape[1] // ways).expand(3, -1)
        given = torch.cat([drawn.batch.support_labels, drawn.batch.query_labels, spare], dim=1)
        true = drawn.labels_of(labels)
        assert drawn.unlabelled.shape == (3, 2 * ways)
        for e in range(3):
            pairs = set(zip(given[e].tolist(), true[e].tolist(), strict=True))
            assert {label for label, _ in pairs} == set(range(ways))
            assert len(pairs) == len({c for _, c in pairs}) == ways


def test_no_image_is_twice_in_an_episode() -> None:
    sampler, _ = sampler_of([5, 6, 7, 8], [0] * 4, spec_of((3, 4), (1, 2), 2), unlabelled=1)
    for _ in range(40):
        rows = Drawn(*sampler.draw(4)).rows
        assert all(len(set(row.tolist())) == len(row) for row in rows)


def test_the_form_is_within_the_bounds_and_takes_every_value() -> None:
    sampler, _ = sampler_of([20] * 6, [0] * 6, spec_of((2, 5), (1, 4), 3))
    forms = set()
    for _ in range(300):
        batch, _ = sampler.draw(1)
        ways = int(batch.ways[0])
        assert batch.query_rows.shape[1] == 3 * ways
        forms.add((ways, batch.support_rows.shape[1] // ways))
    assert forms == {(w, s) for w in range(2, 6) for s in range(1, 5)}


def test_classes_and_their_order_are_drawn_evenly() -> None:
    sampler, labels = sampler_of([4] * 6, [0] * 6, spec_of((3, 3), (1, 1), 1))
    classes = Drawn(*sampler.draw(6000)).labels_of(labels)[:, :3]
    for place in range(3):
        assert is_fair(torch.bincount(classes[:, place], minlength=6))
    assert is_fair(
        torch.bincount((classes * torch.tensor([36, 6, 1])).sum(1), minlength=216)[
            [36 * a + 6 * b + c for a in range(6) for b in range(6) for c in range(6) if len({a, b, c}) == 3]
        ]
    )


def test_images_are_drawn_evenly_for_support_and_query() -> None:
    sampler, labels = sampler_of([3, 5, 8], [0] * 3, spec_of((3, 3), (1, 1), 1), unlabelled=1)
    batch, unlabelled = sampler.draw(4000)
    for rows in (batch.support_rows, batch.query_rows, unlabelled):
        counts = torch.bincount(rows.flatten(), minlength=len(labels))
        assert all(is_fair(counts[torch.from_numpy(labels == c)]) for c in range(3))


def test_an_episode_is_within_one_dataset_and_all_datasets_are_used() -> None:
    datasets = np.array([0, 1, 0, 1, 2, 2, 2, 3])
    sampler, labels = sampler_of([6] * 8, datasets.tolist(), spec_of((2, 5), (1, 2), 2))
    seen = set()
    for _ in range(60):
        used = datasets[Drawn(*sampler.draw(2)).labels_of(labels).numpy()]
        assert all(len(set(row)) == 1 for row in used)
        seen |= set(used.flatten().tolist())
    assert seen == {0, 1, 2}, "the last dataset has one class only"


def test_bounds_are_clamped_to_what_small_classes_have() -> None:
    sampler, labels = sampler_of([2, 2, 3, 9], [0] * 4, spec_of((2, 20), (5, 20), 4), unlabelled=3)
    for _ in range(100):
        drawn = Drawn(*sampler.draw(2))
        ways = int(drawn.batch.ways[0])
        assert 2 <= ways <= 4
        assert drawn.batch.support_rows.shape[1] >= ways
        assert drawn.batch.query_rows.shape[1] >= ways
        assert all(len(set(row.tolist())) == len(row) for row in drawn.rows)
        per_class = torch.stack([torch.bincount(row, minlength=4) for row in drawn.labels_of(labels)])
        assert (per_class <= torch.tensor([2, 2, 3, 9])).all()


def test_only_the_named_classes_are_drawn() -> None:
    labels = np.repeat(np.arange(6), 5)
    sampler = EpisodeSampler(
        labels_only(labels, np.zeros(6, dtype=int)),
        np.array([1, 4, 5]),
        spec_of((2, 3), (1, 1), 1),
        np.random.default_rng(),
    )
    used = {c for _ in range(30) for c in Drawn(*sampler.draw(2)).labels_of(labels).flatten().tolist()}
    assert used == {1, 4, 5}


@pytest.mark.parametrize(
    ("sizes", "datasets"), [([5], [0]), ([5, 5], [0, 1]), ([1, 1, 1], [0, 0, 0]), ([1, 9], [0, 0])]
)
def test_too_little_data_is_refused(sizes: list[int], datasets: list[int]) -> None:
    with pytest.raises(DataError, match="two classes with two images"):
        sampler_of(sizes, datasets, EpisodeSpec())


def test_no_classes_are_refused() -> None:
    none = np.array([], dtype=np.int64)
    with pytest.raises(DataError, match="two classes with two images"):
        EpisodeSampler(
            labels_only(np.arange(3), np.zeros(3, dtype=int)), none, EpisodeSpec(), np.random.default_rng()
        )


def test_the_same_seed_gives_the_same_episodes() -> None:
    draws = []
    for seed in (7, 7, 8):
        source = pool_source(red_pool(), spec_of((2, 5), (1, 3), 2), seed=seed)
        draws.append([source.draw(2).support for _ in range(4)])
    same = [torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True)]
    assert all(same)
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(draws[0], draws[2], strict=True))


def test_a_source_goes_on_from_its_state() -> None:
    spec = spec_of((2, 5), (1, 3), 2)
    source = pool_source(red_pool(), spec, augmentation=Augmentation(flip=True, shift=0.2))
    source.draw(2)
    state = source.state()
    expected = [source.draw(2).query for _ in range(3)]
    again = pool_source(red_pool(), spec, seed=5, augmentation=Augmentation(flip=True, shift=0.2))
    again.restore(state)
    assert all(torch.equal(query, again.draw(2).query) for query in expected)


def test_random_subsets_hold_valid_places_once() -> None:
    valid = np.random.default_rng(0).random((500, 9)) < 0.6
    valid[:, :3] = True
    chosen = draw_subset(np.random.default_rng(1), valid, 3)
    assert np.take_along_axis(valid, chosen, axis=1).all()
    assert all(len(set(row)) == 3 for row in chosen.tolist())


def test_a_pool_gives_the_images_of_the_rows() -> None:
    pool = red_pool()
    source = pool_source(pool, spec_of((3, 3), (2, 2), 1), unlabelled=2)
    rows = Drawn(*pool_source(pool, spec_of((3, 3), (2, 2), 1), unlabelled=2).sampler.draw(4)).rows
    episodes = source.draw(4)
    assert episodes.unlabelled is not None
    together = torch.cat([episodes.support, episodes.query, episodes.unlabelled], dim=1)
    assert torch.equal(together, torch.from_numpy(pool.images)[rows])
    assert pool_source(pool, spec_of((3, 3), (2, 2), 1)).draw(1).unlabelled is None


def test_images_of_a_class_are_turned_alike_and_the_pool_is_left_alone() -> None:
    pool = red_pool(px=8)
    pool.images[:] = pool.images[::12].repeat(12, axis=0)
    before = pool.images.copy()
    source = pool_source(pool, spec_of((3, 3), (2, 2), 2), unlabelled=1, augmentation=Augmentation(turn=True))
    episodes = source.draw(20)
    assert episodes.unlabelled is not None
    turned = 0
    for e in range(20):
        for c in range(3):
            own = torch.cat([episodes.support[e, 2 * c :][:2], episodes.query[e, 2 * c :][:2]])
            assert (own == own[0]).all()
            assert torch.equal(episodes.unlabelled[e, c], own[0])
            turned += not (before == own[0].numpy()).all((1, 2, 3)).any()
    assert 30 < turned < 58, "three quarters of them"
    np.testing.assert_array_equal(pool.images, before)


def task(ways: int, shots: int, queries: int, value: float = 0.5) -> Any:
    def image_set(each: int) -> tuple[torch.Tensor, ...]:
        labels = torch.arange(ways, dtype=torch.int32).repeat_interleave(each)
        return torch.full((len(labels), 3, 8, 8), value), labels, labels

    return SimpleNamespace(support_set=image_set(shots), query_set=image_set(queries), num_ways=ways)


def test_tasks_of_all_forms_are_padded() -> None:
    source = TaskSource([task(2, 3, 1, 0.2), task(4, 1, 2, 1.0)], torch.from_numpy)
    episodes = source.draw(2)
    assert episodes.support.dtype == torch.uint8
    assert episodes.support.shape == (2, 6, 3, 8, 8)
    assert episodes.ways.tolist() == [2, 4]
    assert episodes.support_labels.tolist() == [[0, 0, 0, 1, 1, 1], [0, 1, 2, 3, -1, -1]]
    assert episodes.query_labels.tolist() == [[0, 1, *[-1] * 6], [0, 0, 1, 1, 2, 2, 3, 3]]
    assert (episodes.support[0] == 51).all()
    assert (episodes.support[1, :4] == 255).all()
    assert (episodes.support[1, 4:] == 0).all()
    one = TaskSource([task(2, 3, 1, 0.2)], torch.from_numpy).draw(1)
    assert torch.equal(stack_episodes([one]).support, one.support)


def test_a_stream_that_ends_is_told() -> None:
    source = TaskSource([task(2, 1, 1)], torch.from_numpy)
    source.draw(1)
    with pytest.raises(DataError, match="has ended"):
        source.draw(1)


def test_a_stream_of_batches_is_no_stream_of_tasks() -> None:
    with pytest.raises(DataError, match="gives tuple, not tasks"):
        TaskSource([(1, 2)], torch.from_numpy).draw(1)


def test_batches_that_are_mixed_have_classes_of_all_datasets() -> None:
    labels, datasets = np.repeat(np.arange(8), 6), np.array([0] * 4 + [1] * 4)
    pool = labels_only(labels, datasets)
    seen: dict[bool, set[frozenset[int]]] = {True: set(), False: set()}
    for mixed in seen:
        spec = spec_of((6, 6), (1, 1), 1)
        sampler = EpisodeSampler(pool, np.arange(8), spec, np.random.default_rng(0), mixed=mixed)
        for _ in range(20):
            batch, _ = sampler.draw(2)
            seen[mixed] |= {frozenset(datasets[labels[rows.numpy()]].tolist()) for rows in batch.support_rows}
    assert seen[True] == {frozenset({0, 1})}  # six of eight classes
    assert seen[False] == {frozenset({0}), frozenset({1})}


def test_distractors_are_images_without_labels_of_classes_that_an_episode_does_not_have() -> None:
    sampler, labels = sampler_of([9] * 6, [0] * 6, spec_of((3, 3), (2, 2), 2), unlabelled=2)
    sampler.distractors = 2
    batch, rows = sampler.draw(50)
    assert rows.shape == (50, (3 + 2) * 2) and sampler.largest() == (3, 2, 2, 4)
    of_class = torch.from_numpy(labels)
    own = of_class[batch.support_rows].unflatten(1, (3, 2))[..., 0]
    asked = of_class[rows].unflatten(1, (5, 2))
    assert torch.equal(asked[:, :3, 0], own) and torch.equal(asked[..., 0], asked[..., 1])
    assert all(len(set(classes)) == 5 for classes in asked[..., 0].tolist())
    sampler.distractors = 9
    assert sampler.draw(1)[1].shape == (1, 6 * 2)


def test_distractors_are_turned_as_classes_of_their_own() -> None:
    source = pool_source(
        red_pool(), spec_of((3, 3), (2, 2), 2), unlabelled=1, augmentation=Augmentation(turn=True)
    )
    source.sampler.distractors = 2
    episodes = source.draw(4)
    assert episodes.unlabelled is not None and episodes.unlabelled.shape[1] == 5


def test_distractors_without_images_without_labels_are_refused() -> None:
    with pytest.raises(ConfigError, match="distractors: 2 come without labels: set unlabelled_per_class"):
        validate_settings(Recipe, {"distractors": 2}, "recipe")
