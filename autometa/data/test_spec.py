"""What ingestion declares about the meta-test before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from autometa.core.time_policy import POLICY
from autometa.data.episodes import EpisodeSpec

FORMAT_PX = 128
"""Size of the images of the format."""


@dataclass(frozen=True)
class TestSpec:
    """The declared meta-test: the number of `tasks` and their form.

    `images`: number of distinct images at most; `drawn_images`: number over all tasks, repeats included; None if
    unknown. `standby`: whether the process of meta-test is already running. `px`: size of the images. `isolated`:
    each task has a process of its own, which loads the learner and keeps nothing for the next.
    """

    tasks: int
    episodes: EpisodeSpec
    images: int | None
    protocol: str
    drawn_images: int | None = None
    standby: bool = False
    px: int = FORMAT_PX
    isolated: bool = False

    __test__ = False

    @property
    def is_cross_domain(self) -> bool:
        """Whether the tasks come from datasets that are not in meta-train."""
        return self.protocol == "cross-domain"

    @property
    def processes(self) -> int:
        """How many start, one after the other, where none fails."""
        return self.tasks if self.isolated else 1

    def start_s(self, whole_s: float) -> float:
        """Seconds to reserve for starting processes, each of which takes `whole_s`. What stands by is slow at first,
        too."""
        if self.isolated:
            return self.tasks * (POLICY.slowdown * whole_s + POLICY.between_s)
        return POLICY.standby_share * whole_s if self.standby else whole_s

    @property
    def shown_images(self) -> float:
        """Number of images over all tasks, repeats included."""
        return self.drawn_images or self.tasks * self.episodes.mean_images

    @property
    def moved_images(self) -> float:
        """As many images of the format are as many pixels as the shown ones."""
        return self.shown_images * (self.px / FORMAT_PX) ** 2

    @property
    def embedded_images(self) -> float:
        """Number of distinct images, at most; a process does not know those of another one."""
        return (
            self.shown_images if self.images is None or self.isolated else min(self.shown_images, self.images)
        )
