"""What purchases and the end of a run cost in seconds, and what there is time and memory for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from autometa.backbones import TUNED, View
from autometa.core.budget import MemoryBudget
from autometa.data.images import ImagePool
from autometa.learners.trained import TrainedCosts
from autometa.planning.forecast import PROBE_PX, Forecast
from autometa.planning.serving_limits import Broken
from autometa.search.copy_orders import CopyOrders
from autometa.search.draft import PortfolioDraft
from autometa.search.few_modes import learning_bytes
from autometa.search.purchases import Purchase
from autometa.search.serving_gate import ServingGate

ASKED_TO_WEIGH = 2
"""How often choosing weights asks about each fold."""
TRAIN_GUESS_S = 20.0
"""Seconds to train a copy by classification, at most, until one was trained; more where the images take longer."""
TRUNK_SHARE = 0.75
"""Of the time of a network, that of the stages which are not trained, about: images are prepared by them."""
FEATURE_BYTES = 4 * 2600
"""Of an image in a view, about."""
SERVING_BYTES, SERVED_BYTES = 700 * 10**6, 270 * 10**6
"""Memory of the process of meta-test: without views, and for each (an engine, weights, metrics, features); a bit more
than was measured with one to eight views of the networks that come along."""
FIRST_SHARE = 0.5
"""Of the memory that is left: the images to learn from and their features in the first view."""
VIEW_BYTES = 350 * 2**20
"""Of a view besides: an engine, metrics, and what fitting them takes."""


def most_images(memory: MemoryBudget, pool: ImagePool) -> int:
    """How many images to learn from memory has room for: for their features in a view, as it is predicted before one
    is bought, and for a copy of them, which is needed where they are not all of the pool."""
    if memory.is_small:  # images lie in a file, and what a view takes decides about modes
        return min(len(pool.images), int(FIRST_SHARE * max(memory.left_bytes(), 0) / (2 * FEATURE_BYTES)))
    room = FIRST_SHARE * max(memory.left_bytes() - VIEW_BYTES, 0)
    if room >= 2 * FEATURE_BYTES * len(pool.images):
        return len(pool.images)
    return int(room / (2 * FEATURE_BYTES + pool.images[:1].nbytes))


@dataclass
class Prices:
    """Predicted seconds for one portfolio, from what was measured so far. `task_s`: seconds that a task takes in
    meta-test for each view, beside the networks."""

    draft: PortfolioDraft
    forecast: Forecast
    task_s: float = 0.01
    offer_s: float = 1.0
    """Seconds that building and saving a learner took last."""
    gate: ServingGate | None = None
    """What the learner may cost those who use it (None: anything)."""
    orders: CopyOrders | None = None
    """Copies that others train meanwhile."""
    trained_s: float | None = field(default=None, init=False)
    """Seconds that training a copy by classification took last."""

    @property
    def reserved_s(self) -> float:
        """Seconds for taking in copies that are being trained elsewhere."""
        return self.orders.reserved_s if self.orders is not None else 0.0

    def seconds(self, purchase: Purchase) -> float:
        """Of a purchase, from now to what the evidence says of it."""
        train_s = self.train_s(purchase) if purchase.kind == "trained" else 0.0
        return self.take_in_s(purchase) + train_s

    def take_in_s(self, purchase: Purchase) -> float:
        """Of a purchase whose network is there: to embed the images, and to what the evidence says of it."""
        more, bench = 1, self.draft.bench
        if purchase.kind == "turned":
            more = purchase.orientations - bench.orientations[purchase.view]
        slowdown = self.forecast.policy.slowdown
        embed_s = slowdown * self.forecast.embed_s(purchase.view, more * len(bench.pool.images))
        return embed_s + slowdown * self.draft.asked_s

    def serving_s(self, purchase: Purchase) -> float:
        """By which a purchase makes meta-test longer."""
        return self.meta_test_s([purchase.view]) - self.meta_test_s()

    def train_s(self, purchase: Purchase) -> float:
        """That training may take; 0 where they would be too few."""
        policy, spare_s = self.forecast.policy, self.spare_s()
        if purchase.view.variant != TUNED:
            return policy.family_s(spare_s)
        return min(policy.tuning_s(spare_s), self.trained_s or self._guess_train_s(purchase.view))

    def _guess_train_s(self, view: View) -> float:
        """Of the first training: a slow machine needs more to prepare the images."""
        network = self.forecast.shelf.built(view.backbone)
        choice = network.choice(PROBE_PX) if network else None
        image_s = choice.image_s.get("eager") if choice else None
        if image_s is None:
            return TRAIN_GUESS_S
        policy, bench = self.forecast.policy, self.draft.bench
        rows = len(bench.pool.images) * (1 - 1 / max(len(bench.folds), 2))
        prepare_s = policy.slowdown * TRUNK_SHARE * rows * image_s * (view.px / PROBE_PX) ** 2
        return max(TRAIN_GUESS_S, prepare_s / policy.tune_prepare_share)

    def meta_test_s(self, further: Sequence[View] = ()) -> float:
        """Of meta-test with the portfolio as it is now, and `further` views."""
        views = self._with(further)
        return self.forecast.meta_test_s(views, self._costs(views))

    def spare_s(self, further: Sequence[View] = ()) -> float:
        """That can be spent now so that the end of the run and meta-test, with `further` views, still fit."""
        views = self._with(further)
        return self.forecast.spare_s(views, self._costs(views)) - self._end_s() - self.reserved_s

    def fits(self, purchase: Purchase, seconds: float) -> bool:
        """Whether there is time for a purchase, for training it where it is trained, and then for meta-test with it,
        and memory."""
        return (purchase.kind != "trained" or self.train_s(purchase) > 0) and self.has_room(purchase, seconds)

    def has_room(self, purchase: Purchase, seconds: float) -> bool:
        """The same for a purchase whose network is there."""
        bench = self.draft.bench
        images = len(bench.pool.images) * purchase.orientations
        memory, views = self.forecast.limits.memory, self._with([purchase.view])
        needed = VIEW_BYTES + 2 * FEATURE_BYTES * images + bench.product_bytes
        if memory.is_small and purchase.kind == "view" and not bench.folds:
            needed = learning_bytes(self.forecast, purchase.view, bench.modes, 0, len(bench.pool.images))
        if not memory.fits(needed) or self.serving_bytes(views) > memory.total_bytes:
            return False
        spare_s = seconds + self.reserved_s + self.offer_s + self._end_s()
        return self.forecast.fits(views, learners=self._costs(views), spare_s=spare_s)

    def breaks(self, purchase: Purchase) -> Broken | None:
        """The limit of its users that the portfolio would break with a purchase, even in the fewest modes."""
        if self.gate is None or purchase.view in self.draft.bench.orientations:
            return None
        return self.gate.broken_with(self._with([purchase.view]))

    def serving_bytes(self, views: Sequence[View]) -> int:
        """Memory that meta-test with these views is expected to take."""
        if self.forecast.limits.memory.is_small:
            return self.forecast.serving_bytes(views, self.draft.bench.modes)
        return SERVING_BYTES + SERVED_BYTES * len(views)

    def may_refine(self, trials: int) -> bool:
        """Whether there is time to try so many refinements, in all modes, and for all that comes after."""
        modes = self.draft.modes
        return self.spare_s() > self._weigh_s(modes) + trials * self._ask_s(modes)

    def weighed_modes(self) -> Mapping[str, float] | None:
        """The modes that there is time to weigh, with equal weights: all of them, or those that purchases are
        compared in; None where there is time for neither."""
        all_modes, quick = self.draft.modes, self.draft.quick_modes
        if self.spare_s() > self._weigh_s(all_modes):
            return all_modes
        views = self.draft.views
        left_s = self.forecast.spare_s(views, self._costs(views)) + self.forecast.policy.ensemble_s
        return quick if left_s > self._weigh_s(quick) else None

    def _weigh_s(self, modes: Mapping[str, float]) -> float:
        """To choose weights of these modes."""
        bench = self.draft.bench
        moving_s = self.forecast.policy.slowdown * bench.count_unknown(modes) * bench.move_s
        return moving_s + ASKED_TO_WEIGH * self._ask_s(modes)

    def _ask_s(self, modes: Mapping[str, float]) -> float:
        """To ask these modes of the portfolio about all folds."""
        fold_s = self.draft.evidence.fold_s(modes)
        return self.forecast.policy.slowdown * fold_s * len(self.draft.bench.folds)

    def _end_s(self) -> float:
        """That weights and the final learner take beyond those that are reserved for the end of any run."""
        weigh_s = self._weigh_s(self.draft.quick_modes)
        check_s = self.gate.check_s(self.draft.views) if self.gate else 0.0
        return max(weigh_s + self.offer_s + check_s - self.forecast.finish_s(self.draft.views), 0.0)

    def _with(self, further: Sequence[View]) -> list[View]:
        return [*{*self.draft.views, *further}]

    def _costs(self, views: Sequence[View]) -> list[TrainedCosts]:
        return [TrainedCosts(task_s=self.task_s * len(views))]
