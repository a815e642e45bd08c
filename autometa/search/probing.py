"""Before the search: what each backbone costs here, and the view that comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autometa.backbones import View, find_spec
from autometa.core.errors import FAILURES, UnmetLimit, describe
from autometa.core.settings import Settings
from autometa.planning.forecast import Forecast
from autometa.search.serving_gate import ServingGate
from autometa.search.usable_backbones import UsableBackbones

EMBEDDED_TIMES = 3
"""How often an image is embedded with a good network, about: what building an engine must pay for."""


@dataclass
class Prober:
    """Measures backbones for one run; `report` gets a line for each."""

    backbones: UsableBackbones
    forecast: Forecast
    settings: Settings
    gate: ServingGate
    report: Callable[[str], None]

    def plain_view(self) -> View:
        """What the first backbone that can be used is used at before anything is measured, at a smaller size where
        the limits ask for it. WeightsError where there is none, UnmetLimit where none keeps them."""
        view = self.backbones.first_view(self.settings.resolutions)
        if not self.gate.limits:
            return view
        unmet: UnmetLimit | None = None
        for name in filter(self.backbones.is_usable, self.backbones.names):
            try:
                return self.gate.first_view(self._sizes(name, view.px))
            except UnmetLimit as error:
                unmet = unmet or error
        assert unmet is not None, "the first view has a backbone that is usable"
        raise unmet

    def _sizes(self, name: str, largest_px: int) -> list[View]:
        """Views with a backbone, from a size down."""
        smaller = sorted({px for px in self.settings.resolutions if px < largest_px}, reverse=True)
        network = self.forecast.shelf(name)
        return list(dict.fromkeys(View(name, network.input_px(px)) for px in (largest_px, *smaller)))

    def measure(self, images: NDArray[np.uint8], wanted: View, n_images: int) -> View:
        """Measure backbones on a few images, of `n_images` to learn from; the view that is wanted first, or a coarser
        one if meta-test needs it."""
        forecast, backbones, gate = self.forecast, self.backbones, self.gate
        gate.sample = images
        limits, policy = forecast.limits, forecast.policy
        probing = limits.train.share(policy.probe_share)
        for name in backbones.in_order(forecast, forecast.test.embedded_images + n_images, wanted.backbone):
            if forecast.probed and not (probing.left_s() > 0 and forecast.fits([wanted])):
                break
            if self._is_affordable(name, wanted) and backbones.is_usable(name):
                try:
                    if gate.limits.times:  # its engine was chosen on noise, before there were images
                        forecast.shelf(name).reconsider(wanted.px, whatever=True)
                    rate = forecast.probe(name, images, EMBEDDED_TIMES * n_images)
                    gate.measure(View(name, forecast.shelf(name).input_px(wanted.px)), anew=True)
                except FAILURES as error:
                    if name == wanted.backbone:
                        raise
                    backbones.leave_out(name, describe(error))
                else:
                    self.report(f"probe: {name} {rate:.0f} images/s at 128 px")
        view = forecast.coarsened(wanted)
        if view != wanted:
            self.report(f"{wanted} is too slow for meta-test here, {view} instead")
        return view

    def _is_affordable(self, name: str, wanted: View) -> bool:
        """Whether a backbone is there already, or there is time for the images of meta-test with it. Of those to
        learn from, as many are taken as there is time for."""
        if name == wanted.backbone:
            return True
        forecast = self.forecast
        if (broken := self.gate.too_slow(find_spec(name), min(self.settings.resolutions))) is not None:
            self.backbones.leave_out(name, f"{name}: {broken}")
            return False
        n_images = forecast.test.embedded_images
        return self.backbones.is_affordable(name, n_images, forecast, forecast.limits, forecast.policy)
