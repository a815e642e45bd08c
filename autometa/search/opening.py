"""What a search starts from: images to learn from, folds of their classes, and what can be bought with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autometa.backbones import View
from autometa.core import journals
from autometa.core.settings import Settings
from autometa.core.sharing import SharedWork
from autometa.data.images import ImagePool, take_share_of_each_class
from autometa.data.mapped import copy_rows
from autometa.data.test_spec import TestSpec
from autometa.evaluation.folds import draw_folds
from autometa.planning.forecast import Forecast
from autometa.planning.plan import Plan
from autometa.planning.stage_log import JOURNAL
from autometa.search.copy_orders import CopyOrders, TrainedOn, Trainers
from autometa.search.draft import PortfolioDraft
from autometa.search.evidence import Evidence
from autometa.search.few_modes import choose_modes
from autometa.search.prices import Prices, most_images
from autometa.search.purchases import Gains
from autometa.search.serving_gate import ServingGate
from autometa.search.shop import Shop
from autometa.search.variant_training import VariantTrainer
from autometa.search.workbench import TRAINING_FOLD, Workbench

OTHER_SIZES = 1.3
"""Seconds to embed an image in the views that are likely to be bought, in relation to those in the first view with
each backbone."""


@dataclass
class Opening:
    """Opens the shop of one meta-training, once its time is planned; `report` gets a line for whoever watches."""

    settings: Settings
    test: TestSpec
    forecast: Forecast
    gate: ServingGate
    rng: np.random.Generator
    report: Callable[[str], None]
    trainers: Trainers | None = None
    """Who trains copies beside this process, on images that they were given."""

    def open_shop(
        self, pool: ImagePool, first: View, plan: Plan, checkpoint: Path | None, shared: SharedWork | None
    ) -> Shop:
        """A shop whose `first` view is wanted before all others. It knows the purchases of an earlier run from the
        journal in `checkpoint`; `shared`: trainings in common with other runs."""
        chosen = self._take_share(pool, first, plan)
        if self.forecast.store.spread is not None:
            self.forecast.store.spread.hold(chosen.images)
        bench = self._lay_out(chosen, len(pool.images), first, plan)
        gains = Gains(len(np.unique(chosen.labels)))
        known = gains.learn_from(journals.read(checkpoint / JOURNAL)) if checkpoint else 0
        if known:
            self.report(f"resumed: {known} purchases of earlier runs are known")
        unseen = bench.folds[TRAINING_FOLD].classes if bench.folds else np.empty(0, np.int64)
        trained_on = np.flatnonzero(~np.isin(chosen.labels, unseen))
        settings = self.settings
        trainer = VariantTrainer(chosen, trained_on, self.forecast, self.report, settings.tune_steps, shared)
        if not bench.folds:  # what is trained may be worse, and nothing would tell
            settings = settings.model_copy(update={"tune_steps": 0, "families": ()})
        draft = PortfolioDraft(bench, Evidence(bench, self.test.episodes.balanced))
        self.gate.limit_modes(bench.modes)
        gate, orders = self.gate if self.gate.limits else None, self._open_orders(trainer)
        prices = Prices(draft, self.forecast, gate=gate, orders=orders)
        return Shop(draft, prices, settings, gains, trainer, first)

    def _open_orders(self, trainer: VariantTrainer) -> CopyOrders | None:
        if self.trainers is None:
            return None
        pool, episodes, device = trainer.pool, self.test.episodes, self.forecast.shelf.device
        classes = pool.dataset_of_class, pool.datasets
        on = TrainedOn(trainer.rows, pool.labels, *classes, episodes, device, trainer.most_steps)
        return CopyOrders(self.trainers, on, self.report)

    def _take_share(self, pool: ImagePool, first: View, plan: Plan) -> ImagePool:
        """The images to learn from: as many of each class as there is time for in several views, and memory."""
        forecast = self.forecast
        alike = [replace(first, backbone=name) for name in forecast.probed]
        several_s = OTHER_SIZES * forecast.policy.slowdown * sum(map(forecast.learned_image_s, alike))
        search_s = min(plan.search_s, forecast.spare_s([first]))  # meta-training may have to end before
        memory = forecast.limits.memory
        most = min(int(forecast.policy.embed_share * search_s / several_s), most_images(memory, pool))
        rows = take_share_of_each_class(pool.labels, max(most, 1) / len(pool.images), self.rng)
        if len(rows) == len(pool.images):
            return pool  # as it is: a copy would take as much memory
        images = copy_rows([pool.images], [rows], in_file=memory.is_small)
        return replace(pool, images=images, labels=pool.labels[rows])

    def _lay_out(self, chosen: ImagePool, given: int, first: View, plan: Plan) -> Workbench:
        """Folds of the classes of the images that were chosen among those given, and the modes that there is room and
        time for."""
        policy, n_images = self.forecast.policy, len(chosen.images)
        most_folds = policy.folds(plan.search_s)
        n_episodes = self.settings.validation_episodes // most_folds
        folds = draw_folds(chosen, self.test, most_folds, n_episodes, self.rng)
        sizes = np.bincount(chosen.labels)
        if (sizes > 0).sum() < 2 or sizes.max() < 2:
            fitted, folds = False, []
        else:
            fitted = self.gate.has_metrics
        modes, folds = choose_modes(self.forecast, first, folds, n_images, fitted=fitted)
        told = f"in {len(modes)} modes, with {len(folds)} folds"
        self.report(f"{n_images} of {given} images are learned from, {told}")
        return Workbench(chosen, folds, modes, self.forecast)
