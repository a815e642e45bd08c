"""What ingestion declares about the meta-test before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from autometa.data.episodes import EpisodeSpec

STANDBY_SHARE = 0.3
"""Share of the start-up time of a process that is reserved even if the process is already running."""


@dataclass(frozen=True)
class TestSpec:
    """The declared meta-test: the number of `tasks` and their form.

    `images`: number of distinct images at most; `drawn_images`: number over all tasks, repeats included; None if
    unknown. `standby`: whether the process of meta-test is already running.
    """

    tasks: int
    episodes: EpisodeSpec
    images: int | None
    protocol: str
    drawn_images: int | None = None
    standby: bool = False

    __test__ = False

    @property
    def is_cross_domain(self) -> bool:
        """Whether the tasks come from datasets that are not in meta-train."""
        return self.protocol == "cross-domain"

    def start_s(self, whole_s: float) -> float:
        """Seconds to reserve for the start of a process that takes `whole_s`; even a running one is slow at first."""
        return STANDBY_SHARE * whole_s if self.standby else whole_s

    @property
    def shown_images(self) -> float:
        """Number of images over all tasks, repeats included."""
        return self.drawn_images or self.tasks * self.episodes.mean_images

    @property
    def embedded_images(self) -> float:
        """Number of distinct images, at most."""
        return self.shown_images if self.images is None else min(self.shown_images, self.images)
