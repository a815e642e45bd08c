"""What a portfolio costs in meta-test, as known before it begins, and how much of it there is time for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from autometa.backbones import View
from autometa.backbones.feature_store import FeatureStore
from autometa.core.budget import stopwatch
from autometa.core.time_policy import POLICY
from autometa.planning.meta_test import REST_S, MetaTestSchedule, reserve_image_s

Images = NDArray[np.uint8]
MOST_SLOW = 10.0
"""How much slower than predicted a process is taken to be, at most: what held up its first view may be over."""


class ServingCosts(BaseModel):
    """Seconds that meta-training has measured: of an image and of building the engine, by view, and of a task beside
    the networks. What is missing counts for nothing until meta-test measures it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_s: dict[str, float] = {}
    engine_s: dict[str, float] = {}
    task_s: float = REST_S

    def with_task(self, seconds: float) -> ServingCosts:
        """The same with the seconds of a task."""
        return self.model_copy(update={"task_s": seconds})

    def embedding_s(self, view: View, n_images: float, store: FeatureStore, loads: int = 1) -> float:
        """To embed so many images in a view, with a margin; its engine must be built first where `store` has embedded
        none in it, in so many processes."""
        if store.embedded(view):
            return n_images * reserve_image_s(view, store)
        known_s = self.image_s.get(str(view), 0.0) * n_images + loads * self.engine_s.get(str(view), 0.0)
        return max(POLICY.slowdown * known_s, n_images * reserve_image_s(view, store))


UNKNOWN_COSTS = ServingCosts()


class ServingPlan:
    """How many views and modes of a portfolio answer each task, so that the last one is in time: `schedule` says how
    much is to come, `store` what networks cost here."""

    def __init__(
        self, views: Sequence[View], n_modes: int, costs: ServingCosts, schedule: MetaTestSchedule
    ) -> None:
        self._views, self._n_modes, self._costs, self._schedule = tuple(views), n_modes, costs, schedule
        self._slowness = 1.0
        """How many times as long as measured before an engine took to build here, and its first images."""
        self._share_in_use = 1.0
        """Of the work of all views and modes, that the task before took: what was measured of it was that share."""

    def begin_task(self, store: FeatureStore) -> tuple[int, int]:
        """How many views and modes the time left allows for the task that begins: modes are dropped before views,
        and one of each always answers. They come back where that is clearly in time."""
        schedule, n_views, n_modes = self._schedule, len(self._views), self._n_modes
        schedule.begin(self._share_in_use)
        whole_s = schedule.tasks_left * schedule.times.rest_s(self._costs.task_s)
        left_s = schedule.left_s()
        embed_s = [
            self._embedding_s(view, schedule.images_left(view, store), store, schedule.loads_left)
            for view in self._views
        ]
        levels = [(n_views, n) for n in range(n_modes, 0, -1)] + [(n, 1) for n in range(n_views - 1, 0, -1)]
        chosen = levels[-1]
        for views, modes in levels:
            share = views * modes / (n_views * n_modes)
            limit_s = left_s * (POLICY.clearly_share if share > self._share_in_use else 1.0)
            if share * whole_s + sum(embed_s[:views]) <= limit_s:
                chosen = views, modes
                break
        self._share_in_use = chosen[0] * chosen[1] / (n_views * n_modes)
        return chosen

    def embed(
        self, views: Sequence[View], images: Images, keys: Sequence[Any], store: FeatureStore
    ) -> tuple[View, ...]:
        """Embed the images of the task at hand in these views, the cheapest first; those in which it was done. A
        further one is left out where it would take too much of the time of the other tasks."""
        done = set[View]()
        for view in sorted(views, key=lambda view: self._missing_s(view, store.missing(view, keys), store)):
            missing = store.missing(view, keys)  # a view with the same network may have embedded them by now
            if done and missing and self._embedding_s(view, missing, store) > self._schedule.task_left_s():
                continue
            self._embed(view, images, keys, missing, store)
            done.add(view)
        return tuple(view for view in views if view in done)

    def _missing_s(self, view: View, missing: int, store: FeatureStore) -> float:
        """To embed the images that a view lacks, if any."""
        return self._embedding_s(view, missing, store) if missing else 0.0

    def _embed(
        self, view: View, images: Images, keys: Sequence[Any], missing: int, store: FeatureStore
    ) -> None:
        """Embed, and learn from the first time in a view how slow this process is."""
        elapsed, is_first = stopwatch(self._schedule.budget.clock), not store.embedded(view)
        expected_s = self._costs.embedding_s(view, missing, store)
        store.embed(view, images, keys)
        if is_first and missing and expected_s:
            self._slowness = min(max(self._slowness, elapsed() / expected_s), MOST_SLOW)

    def _embedding_s(self, view: View, n_images: float, store: FeatureStore, loads_left: int = 1) -> float:
        """To embed so many images in a view, as slow as this process was found to be."""
        slowness = 1.0 if store.embedded(view) else self._slowness
        return slowness * self._costs.embedding_s(view, n_images, store, loads_left)

    def end_task(self) -> None:
        """A task is answered."""
        self._schedule.end_task()
