"""What a submission is told of the meta-test before it."""

from __future__ import annotations

from dataclasses import dataclass

from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec


@dataclass(frozen=True)
class TestSpec:
    """The declared meta-test: number and form of tasks; `images` distinct ones at most and `drawn_images`
    over all tasks with repeats (None: unknown). `standby`: its process has started already."""

    tasks: int
    episodes: EpisodeSpec
    images: int | None
    protocol: str
    drawn_images: int | None = None
    standby: bool = False

    __test__ = False

    @property
    def is_cross_domain(self) -> bool:
        """Whether the tasks are of datasets that meta-training has not seen."""
        return self.protocol == "cross-domain"

    def start_s(self, whole_s: float) -> float:
        """Seconds to reserve for starting a process, which takes `whole_s`. What stands by is slow at first, too."""
        return POLICY.standby_share * whole_s if self.standby else whole_s

    @property
    def shown_images(self) -> float:
        """Images over all tasks, repeats counted."""
        return self.drawn_images or self.tasks * self.episodes.mean_images

    @property
    def embedded_images(self) -> float:
        """Distinct images at most."""
        return self.shown_images if self.images is None else min(self.shown_images, self.images)
