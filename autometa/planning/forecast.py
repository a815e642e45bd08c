"""What things cost here: measured once per backbone, refined by every image embedded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from autometa.backbones import (
    EAGER,
    Backbone,
    BackboneSpec,
    Source,
    View,
    batch_size,
    fill_batch,
    kind_of,
    peak_bytes,
    predict_bytes,
    work_of,
)
from autometa.backbones.engines import ENGINES
from autometa.backbones.feature_store import FeatureStore
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits, own_bytes
from autometa.core.machine import free_bytes, time_settled
from autometa.core.speed import ENOUGH_STEPS, Speed, estimate_margin
from autometa.core.time_policy import POLICY, TimePolicy
from autometa.data.test_spec import TestSpec
from autometa.learners.prepared import PROBE_IMAGES
from autometa.learners.trained import TrainedCosts
from autometa.planning.memory import WORK_BYTES, Task, view_bytes
from autometa.planning.meta_test import SMALLEST_PX
from autometa.planning.plan import HEADS_S, Costs, affordable, meta_test_s
from autometa.planning.saving import SavingCosts
from autometa.planning.serving import ServingCosts

PROBE_PX = 128
ROOMY_BYTES = 3 * 2**29
"""Memory left with which training begins beside the engines; with less, they give theirs back."""
HALF_BYTES, MATRICES = 2, 5
"""Of a number in half precision, and how many matrices as large as all features of a view its metrics have, about."""
GUESS_BYTES = 5 * 10**7
"""Of a network that was not built yet, and the metrics on it."""
RACE_S = 1.0
"""What a race costs besides building the winner."""
ALONE, ALONE_S = 1.5, 0.005
"""How many times as long as one of many episodes a task takes that a head answers alone, and seconds on top for its
metric and for what many share."""


@dataclass
class Forecast:
    """Predicted seconds of what is ahead, from measurements on this machine. Its questions change nothing: what is
    only considered comes as an argument."""

    test: TestSpec
    limits: Limits
    shelf: BackboneShelf
    store: FeatureStore
    start_s: float
    policy: TimePolicy = POLICY
    saving: SavingCosts = field(default_factory=SavingCosts)
    on_disk: set[View] = field(default_factory=set, init=False)
    """Views that the learner on disk has, so that saving another one does not write them again."""
    start_bytes: int = field(default_factory=own_bytes, init=False)
    """What this process held before it built a network, which is what that of meta-test begins with."""
    _pixel_s: dict[str, float] = field(default_factory=dict, init=False)
    _heads: Speed = field(default_factory=Speed, init=False)
    _tried: set[Source] = field(default_factory=set, init=False)

    def probe(self, backbone: str, images: NDArray[np.uint8], to_come: int = 0) -> float:
        """Choose an engine for a backbone and measure it, on a few images; images per second at 128 px. Besides the
        images of meta-test it is for about as many `to_come`."""
        network = self.shelf(backbone)
        px = network.input_px(PROBE_PX)
        if (winner := self._clear_winner(kind_of(backbone))) is not None:
            network.prefer(winner, px)
        n_images = int(self.test.embedded_images) + to_come
        network.prepare(
            images,
            px,
            n_images=n_images,
            budget=self.limits.train.share(self.policy.engine_share),
            room_bytes=self.limits.memory.left_bytes(),
        )
        batch = network.batch_size(px, self.limits.memory.left_bytes())
        probe = fill_batch(images[: min(PROBE_IMAGES, batch)], network.device, batch)
        network.embed(probe[:4], px)
        network.measure_memory(probe, px)
        seconds = time_settled(lambda: network.embed(probe, px), network.device)
        self._pixel_s[backbone] = seconds / len(probe) / px**2
        return 1 / (self._pixel_s[backbone] * PROBE_PX**2)

    def _clear_winner(self, kind: str) -> str | None:
        """The engine that has won clearly with a network of a kind, which others of it need no race for."""
        alike = [self.shelf(name) for name in self._pixel_s if kind and kind_of(name) == kind]
        choices = [network.choice(PROBE_PX) for network in alike]
        return next((each.name for each in choices if each and each.image_s and each.clear), None)

    def predict_image_s(self, spec: BackboneSpec, px: int) -> float | None:
        """Seconds for an image with a backbone that was not built, from one of its kind that was measured, else from
        all, by how much work there is for each; on the same engine. None where that is not known."""
        units = [unit for name in self._pixel_s if (unit := self._unit_of(name)) is not None]
        alike = [unit for unit in units if unit[0] == kind_of(spec.name)] or units
        work = work_of(spec, px, alike[-1][1]) if alike else None
        return None if work is None else median(seconds for _, _, seconds in alike) * work

    def _unit_of(self, backbone: str) -> tuple[str, str, float] | None:
        """The kind of a backbone that was measured, its engine, and how long its work takes here, as a ratio; None
        where its work is not known."""
        network = self.shelf(backbone)
        px = network.input_px(PROBE_PX)
        engine = network.engine_name(px) or EAGER
        work = work_of(network.spec, px, engine)
        return (kind_of(backbone), engine, self._pixel_s[backbone] * px**2 / work) if work else None

    def answered(self, view: View, seconds: float, episodes: int) -> None:
        """Record that a head on this view has answered a number of episodes. The first time on a pass of a network
        is not counted, since it has embedded their images too."""
        if view.source in self._tried:
            self._heads.add(seconds, episodes)
        self._tried.add(view.source)

    @property
    def largest_task(self) -> Task:
        """Of meta-test."""
        spec = self.test.episodes
        images = spec.ways[1] * (spec.shots[1] + spec.queries_per_class)
        return Task(min(images, int(self.test.embedded_images)), self.test.px)

    def serving_bytes(self, views: Iterable[View], modes: Sequence[str]) -> int:
        """Memory that meta-test with these views and modes takes, where the budget is small."""
        images = int(self.test.embedded_images)
        parts = [
            view_bytes(self.width(view), self.weight_bytes(view), self.engine_bytes(view), modes, images)
            for view in views
        ]
        return self.start_bytes + WORK_BYTES + self.largest_task.answer_bytes(modes) + sum(parts)

    def lack_of_memory(self, spec: BackboneSpec) -> str:
        """Why there is no memory for a further network and a batch of images, or "". On a GPU the batch is in its
        memory, and one image in that of the machine."""
        left, on_gpu = self.limits.memory.left_bytes(), free_bytes(self.shelf.device)
        batch = batch_size(self.shelf.device, PROBE_PX, left, peak_bytes(spec, PROBE_PX))
        kinds = [(left, batch, "")] if on_gpu is None else [(left, 1, ""), (on_gpu, batch, " of GPU memory")]
        for room, images, kind in kinds:
            needed = predict_bytes(spec, PROBE_PX, images)
            if needed > room:
                return f"{spec.name}: would take {needed / 1e6:.0f} of {max(room, 0) / 1e6:.0f} MB left{kind}"
        return ""

    def _network(self, view: View) -> Backbone:
        return self.shelf.built_or_plain(view.backbone, view.variant)

    def width(self, view: View) -> int:
        """Length of the features of a view with its layers joined; builds its network."""
        return sum(self._network(view).widths.values())

    def weight_bytes(self, view: View) -> int:
        """Size of the network of a view; builds it."""
        return self._network(view).weight_bytes

    def engine_bytes(self, view: View) -> int:
        """What the engine of a view takes beside the network."""
        choice = self._network(view).expected(view.px)
        return ENGINES[choice.name].room_bytes(self.weight_bytes(view)) if choice else 0

    def finish_s(self, views: Iterable[View]) -> float:
        """Seconds that are kept free for the end of meta-training with these views."""
        return self.policy.ensemble_s + self.save_s(views)

    def save_s(self, views: Iterable[View]) -> float:
        """Seconds to reserve for saving a learner with these views, as far as they are not `on_disk`."""
        new, n_bytes = {view.plain for view in views} - self.on_disk, 0
        there = {(view.backbone, view.variant) for view in self.on_disk}
        for view in new:
            if (network := self.shelf.built(view.backbone)) is None:
                n_bytes += GUESS_BYTES
                continue
            n_bytes += HALF_BYTES * MATRICES * sum(network.widths.values()) ** 2
            if (view.backbone, view.variant) not in there:
                n_bytes += network.weight_bytes
                there.add((view.backbone, view.variant))
        return self.saving.seconds(n_bytes)

    def make_room(self) -> None:
        """Have engines give back their memory where it is short: training and fitting
        metrics need it."""
        if not self.limits.memory.fits(ROOMY_BYTES):
            self.shelf.rest()

    @property
    def probed(self) -> list[str]:
        """Backbones that were measured, in order."""
        return list(self._pixel_s)

    def image_s(self, view: View) -> float:
        """Seconds per image: as measured in this view, else by the number of pixels."""
        passes = 2 if view.flip else 1
        return self.store.seconds_per_image(view) or passes * self._pixel_s[view.backbone] * view.px**2

    def embed_s(self, view: View, images: int) -> float:
        """Seconds to embed so many images to learn from: here, or where others can do it sooner."""
        spread, image_s = self.store.spread, self.image_s(view)
        return images * image_s if spread is None else spread.predict_s(images, image_s)

    def learned_image_s(self, view: View) -> float:
        """Seconds for an image to learn from, where there are many."""
        spread, image_s = self.store.spread, self.image_s(view)
        return image_s if spread is None else image_s / spread.gain

    def coarsened(self, view: View) -> View:
        """The view, at a lower resolution where meta-test needs it, of those that its network takes."""
        network = self.shelf(view.backbone, view.variant)
        while view.px > SMALLEST_PX and not self.fits([view]):
            px = network.input_px(max(int(view.px * 0.75), SMALLEST_PX))
            if px >= view.px:
                break
            view = replace(view.plain, px=px)
        return view

    def costs(self, views: Iterable[View], learners: Iterable[TrainedCosts] = ()) -> Costs:
        """All measured costs of heads on these views, a view as often as it has heads, and of trained learners."""
        views = list(views)
        task_s = HEADS_S
        if len(self._heads) >= ENOUGH_STEPS:  # the median of late, as it is not known yet which are chosen
            task_s = len(views) * (ALONE_S + ALONE * self._heads.percentile_s(50))
        return Costs(
            self.start_s,
            {view: self.image_s(view) for view in views},
            task_s,
            engine_s={view: self._engine_s(view) for view in views},
            margins={view: estimate_margin(self.store.speed(view)) for view in views},
            learners=tuple(learners),
            save_s=self.save_s(views),
            policy=self.policy,
        )

    def spare_s(self, views: Iterable[View], learners: Iterable[TrainedCosts] = ()) -> float:
        """Seconds that can be spent now so that finishing and meta-test with `views` and `learners` still fit."""
        views = list(views)
        reserve_s = self.meta_test_s(views, learners)
        return min(self.limits.train.left_s(), self.limits.run.left_s() - reserve_s) - self.finish_s(views)

    def meta_test_s(self, views: Iterable[View], learners: Iterable[TrainedCosts] = ()) -> float:
        """Predicted seconds of meta-test with a head on each of these views, and with these learners."""
        views = list(views)
        return meta_test_s(views, self.test, self.costs(views, learners))

    def serving_costs(self, views: Iterable[View]) -> ServingCosts:
        """What a portfolio of these views should know about its costs in meta-test."""
        views = list(views)
        return ServingCosts(
            image_s={str(view): self.image_s(view) for view in views},
            engine_s={str(view): self._engine_s(view) for view in views},
        )

    def _engine_s(self, view: View) -> float:
        """Seconds for building the engine of a view in a process that has not; of a copy that is still to be trained,
        what its network takes."""
        network = self.shelf.built(view.backbone, view.variant) or self.shelf.built(view.backbone)
        choice = network.expected(view.px) if network else None
        return choice.build_s if choice else 0.0

    def fits(
        self,
        views: Iterable[View],
        to_embed: Mapping[View, int] | None = None,
        *,
        learners: Iterable[TrainedCosts] = (),
        spare_s: float = 0.0,
    ) -> bool:
        """Whether meta-test with a head on each of `views`, and with `learners`, still fits after embedding the
        images of `to_embed` now and finishing, with `spare_s` to spare."""
        views, to_embed = list(views), to_embed or {}
        costs = self.costs(views, learners)
        now_s = sum({v.source: costs.image_s[v] * n for v, n in to_embed.items()}.values())
        networks = {v: self.shelf.built(v.backbone, v.variant) for v in to_embed}
        unready = {v for v, network in networks.items() if network is None or not network.is_ready(v.px)}
        building_s = sum(self._engine_s(v) + RACE_S for v in unready)
        now_s, spare_s = now_s + building_s, spare_s + self.finish_s(views)
        left_s = self.limits.run.left_s() - spare_s - building_s
        return self.limits.train.fits(now_s + spare_s) and affordable(
            views, left_s, to_embed, self.test, costs
        )
