"""Others that embed images, made up: they are this process, and what comes from them can be spoiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autometa.backbones.embedders import EmbedHere
from autometa.backbones.embedding_parts import Embedded, Part, Pass
from autometa.backbones.spread_features import SpreadFeatures


class Others(EmbedHere):
    """Embeds here as if there were so many processes elsewhere. `spoil` changes what comes."""

    def __init__(self, places: int = 4, spoil: Callable[[Embedded], Embedded] = lambda came: came) -> None:
        super().__init__()
        self.places, self.spoil = places, spoil
        self.parts, self.held, self.cancelled = list[Part](), list[np.ndarray](), 0

    def hold(self, images: np.ndarray) -> None:
        self.held.append(images)

    def submit(self, unit: Part) -> None:
        self.parts.append(unit)
        super().submit(unit)

    def wait(self, timeout_s: float | None = None) -> Embedded:
        return self.spoil(super().wait(timeout_s))

    def cancel(self) -> None:
        self.cancelled += 1
        super().cancel()

    def capacity(self) -> int:
        return self.places


class Willing(SpreadFeatures):
    """Asks others, however soon it would be done here."""

    def pays(self, own: Pass, images: int, image_s: float) -> bool:
        return own not in self._refused


def spread_over(others: Others, lines: list[str] | None = None) -> SpreadFeatures:
    return Willing(others, (lambda _: None) if lines is None else lines.append)
