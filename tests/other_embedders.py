"""Others that embed images, made up: they are this process, and what comes from them can be spoiled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from autometa.backbones.embedding_parts import Embedded, Part, Pass, State, embed_part
from autometa.backbones.spread_features import SpreadFeatures
from autometa.executors.executor import Sequential


class Others(Sequential[Part, Embedded]):
    """Embeds here as if there were so many processes elsewhere. `spoil` changes what comes."""

    def __init__(self, places: int = 4, spoil: Callable[[Embedded], Embedded] = lambda came: came) -> None:
        super().__init__(self._embed)
        self.places, self.spoil = places, spoil
        self.parts, self.held, self.cancelled = list[Part](), list[np.ndarray](), 0
        self._given: tuple[State, np.ndarray] = {}, np.empty((0, 3, 1, 1), np.uint8)
        self._known: set[Pass] = set()

    def hold(self, images: np.ndarray) -> None:
        self.held.append(images)

    def give(self, own: Pass, state: Callable[[], State], images: np.ndarray) -> None:
        self._given = state(), images

    def knows(self, own: Pass) -> bool:
        return own in self._known

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

    def _embed(self, part: Part) -> Embedded:
        state, images = self._given
        self._known.add(part.own)
        return embed_part(part, state, images if part.held else images[part.rows])


class Willing(SpreadFeatures):
    """Asks others, however soon it would be done here."""

    def pays(self, own: Pass, images: int, image_s: float) -> bool:
        return own not in self._refused


def spread_over(others: Others, lines: list[str] | None = None) -> SpreadFeatures:
    return Willing(others, (lambda _: None) if lines is None else lines.append)
