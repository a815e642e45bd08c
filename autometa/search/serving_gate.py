"""The gate: which views and modes a learner may have, so that it keeps the limits of those who will use it.

What an image costs is measured with each network, what metrics cost is computed from their size; both are set right
by what whole learners were measured to take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from autometa.backbones import BackboneSpec, View, work_of
from autometa.core.budget import stopwatch
from autometa.core.errors import UnmetLimit
from autometa.core.machine import one_thread
from autometa.heads import find_metric
from autometa.heads.modes import SIX_MODES, UNFITTED, collect_keys
from autometa.model.inputs import list_inputs
from autometa.planning.forecast import Forecast
from autometa.planning.serving_limits import SHOTS, WAYS, Broken, ServingLimits, ServingNeeds

MODE_SETS = (SIX_MODES, SIX_MODES[:5], SIX_MODES[:4], ("adapted", "root", "plain"), ("root",))
"""Modes that a learner may have, each set with fewer metrics than the one before."""
CALLS, WARM_UPS = 12, 2
"""With a network, for one image: so many are counted, and so many come before."""
MOST_S = 1.0
"""After which fewer calls are enough."""
MANY_IMAGES = 100_000
"""A learner that must be fast is worth a fast engine, however few images a run has."""
BASE_S = 0.002
"""Of an answer, whatever the views; of learning a support set ten times that."""
HALF_BYTES, BESIDE_BYTES = 2, 300_000
"""Of a number of a metric on disk; of what lies beside the tensors, and of their headers."""
ROWS = 2048
"""Of the matrices that tell what metrics cost here; two take turns, so that none stays in a cache."""
TAIL = 1.3
"""The 95th percentile of an answer, in relation to the median: of a few calls, only the latter is known well."""
MOST_RATIO = 4.0
"""Of what a learner was measured to take, to what was predicted."""


def _measure_value_s() -> float:
    """Seconds for each number of a matrix that one image is multiplied with."""
    generator = torch.Generator().manual_seed(0)
    matrices = [torch.rand(ROWS, ROWS, generator=generator) for _ in range(2)]
    image, seconds = torch.rand(1, ROWS, generator=generator), []
    with one_thread():
        for call in range(CALLS):
            elapsed = stopwatch()
            image @ matrices[call % 2]
            seconds.append(elapsed())
    return float(np.median(seconds)) / ROWS**2


@dataclass
class ServingGate:
    """`px`: size of the images. `sets`: of modes, from the most to the fewest. `value_s`: seconds for each number of
    the metrics, for one image (None: measured when first needed)."""

    limits: ServingLimits
    forecast: Forecast
    px: int
    sets: tuple[tuple[str, ...], ...] = MODE_SETS
    value_s: float | None = None
    clock: Callable[[], float] | None = None
    sample: NDArray[np.uint8] | None = None
    """Images uint8 [n, 3, px, px] on which engines are chosen and timed; noise, until there are some."""
    _single_s: dict[View, float] = field(default_factory=dict, init=False)
    """Of one image, by plain view: the median."""
    _infer_ratio: float = field(default=1.0, init=False)
    _adapt_ratio: float = field(default=1.0, init=False)

    def limit_modes(self, modes: tuple[str, ...]) -> None:
        """Only sets of these modes, which there is memory for, come into question."""
        self.sets = tuple(one for one in MODE_SETS if set(one) <= set(modes)) or (modes,)

    @property
    def has_metrics(self) -> bool:
        """Whether portfolios have any."""
        return self.sets != (UNFITTED,)

    def leave_metrics_out(self, first: View) -> str | None:
        """Where a portfolio of this view would break a limit even with the fewest metrics, portfolios have none from
        now on; why, for people. None where they keep them."""
        broken = self.broken_with([first])
        if broken is None:
            return None
        self.sets = (UNFITTED,)
        return f"no metrics are fitted: with them, {first} alone would be {broken}"

    def measure(self, view: View, *, anew: bool = False) -> None:
        """Measure one image in a view, with the engine that is chosen for it now if none was; if it was measured,
        only `anew`."""
        if not self.limits.times or (view.plain in self._single_s and not anew):
            return
        network = self.forecast.shelf(view.backbone, view.variant)
        images = self.sample
        if images is None:
            images = np.random.default_rng(0).integers(0, 256, (32, 3, self.px, self.px), dtype=np.uint8)
        budget = self.forecast.limits.train.share(self.forecast.policy.engine_share)
        room = self.forecast.limits.memory.left_bytes()
        network.prepare(images, view.px, n_images=MANY_IMAGES, budget=budget, room_bytes=room)
        seconds: list[float] = []
        for call in range(WARM_UPS + CALLS):
            if call > 2 * WARM_UPS and sum(seconds) > MOST_S:
                break
            elapsed = stopwatch(self.clock)
            place = call % len(images)
            network.embed_layers(images[place : place + 1], view.px)
            seconds.append(elapsed())
        self._single_s[view.plain] = float(np.median(seconds[WARM_UPS:]))

    def first_view(self, views: Iterable[View]) -> View:
        """The first of these views whose network alone keeps the limits. UnmetLimit where none does: it names what
        the last one takes."""
        broken, seen = None, None
        for seen in views:
            self.measure(seen)
            broken = self.limits.broken_by(self.needs([seen], ()))
            if broken is None:
                return seen
        assert broken is not None, "there is a view"
        what = {"--infer-limit": "for one image", "--adapt-limit": "to adapt"}.get(broken.option, "on disk")
        raise UnmetLimit(
            f"{broken.option} {broken.asked}: the cheapest candidate, {seen}, takes {broken.needed} {what} here; "
            "raise the limit above that, or name a cheaper backbone with --backbones"
        )

    def broken_with(self, views: Sequence[View]) -> Broken | None:
        """The limit that a portfolio of these views breaks even in the fewest modes; None where it keeps all."""
        return self.limits.broken_by(self.needs(views, self.sets[-1])) if self.limits else None

    def too_slow(self, spec: BackboneSpec, px: int) -> Broken | None:
        """The limit that a backbone breaks alone at a size, as far as that is known before it is built."""
        known = [
            seconds / work
            for view, seconds in self._single_s.items()
            if (work := work_of(self.forecast.shelf(view.backbone).spec, view.px))
        ]
        image_s = float(np.median(known)) * (work_of(spec, px) or 0.0) if known else 0.0
        size = int(HALF_BYTES * 1e6 * spec.parameters_m)  # at least; once it is built, it is known
        return self.limits.broken_by(ServingNeeds(image_s, WAYS * SHOTS * image_s, size))

    def modes(self, views: Sequence[View]) -> tuple[str, ...]:
        """The largest set of modes in which a portfolio of these views keeps the limits; the smallest where none
        does."""
        if not self.limits:
            return self.sets[0]
        kept = (one for one in self.sets if self.limits.broken_by(self.needs(views, one)) is None)
        return next(kept, self.sets[-1])

    def why_fewer(self, views: Sequence[View]) -> str | None:
        """Why a portfolio of these views does not have all modes, for people; None where it has."""
        broken = self.limits.broken_by(self.needs(views, self.sets[0])) if self.limits else None
        return f"modes {', '.join(self.modes(views))} only: with all of them {broken}" if broken else None

    def needs(self, views: Sequence[View], modes: Sequence[str]) -> ServingNeeds:
        """What a portfolio of these views in these modes is expected to take."""
        values = sum(self._values(view, modes) for view in views)
        infer_s = adapt_s = 0.0
        if self.limits.times:
            if self.value_s is None:
                self.value_s = _measure_value_s()
            images_s = sum(self._image_s(view) for view in views)
            infer_s = TAIL * self._infer_ratio * (BASE_S + images_s + values * self.value_s)
            adapt_s = (
                TAIL
                * self._adapt_ratio
                * (10 * BASE_S + WAYS * SHOTS * (images_s + values * self.value_s / 4))
            )
        networks = {(view.backbone, view.variant) for view in views}
        weights = sum(self._saved_bytes(*network) for network in networks)
        return ServingNeeds(infer_s, adapt_s, weights + HALF_BYTES * values + BESIDE_BYTES)

    def correct(self, views: Sequence[View], modes: Sequence[str], measured: ServingNeeds) -> None:
        """A portfolio was measured to take this."""
        predicted = self.needs(views, modes)
        for name in ("infer", "adapt"):
            ratio = getattr(measured, f"{name}_s") / getattr(predicted, f"{name}_s")
            before = getattr(self, f"_{name}_ratio")
            setattr(self, f"_{name}_ratio", min(max(before * ratio, 1 / MOST_RATIO), MOST_RATIO))

    def check_s(self, views: Sequence[View]) -> float:
        """Seconds to load the learner that was saved, and to measure it."""
        if not self.limits.times or not views:
            return 0.0
        engines_s = sum(self.forecast.serving_costs(views).engine_s.values())
        return 1.0 + engines_s + 200 * sum(self._image_s(view) for view in views)

    def _saved_bytes(self, backbone: str, variant: str) -> int:
        shelf = self.forecast.shelf
        return shelf.saved_bytes(backbone, variant if shelf.built(backbone, variant) else "")

    def _is_probed(self, view: View) -> bool:
        return view.backbone in self.forecast.probed

    def _image_s(self, view: View) -> float:
        """Seconds of one image: as measured in this view, else by the pixels, from another view of its network, or of
        the backbone before training."""
        plain = view.plain
        if plain in self._single_s:
            return self._single_s[plain]
        alike = [one for one in self._single_s if one.backbone == view.backbone]
        alike = [one for one in alike if one.variant == view.variant] or alike
        if not alike:
            return self.forecast.image_s(view) if self._is_probed(view) else 0.0
        nearest = min(alike, key=lambda one: abs(one.px - view.px))
        return self._single_s[nearest] * (view.px / nearest.px) ** 2

    def _values(self, view: View, modes: Sequence[str]) -> int:
        """Numbers of the metrics on a view that these modes ask for."""
        widths = self.forecast.shelf.built_or_plain(view.backbone, view.variant).widths
        inputs = [one for key in collect_keys(modes) for one in list_inputs([view], key)]
        learned = [one.layers for one, name in inputs if find_metric(name).learned]
        return sum(sum(widths.get(layer, 0) for layer in layers) ** 2 for layers in learned)
