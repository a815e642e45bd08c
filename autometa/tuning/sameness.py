"""When a point need not run, since one with more memory is known to have been the same run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from autometa.core.units import show_bytes
from autometa.planning.choice_log import CHOICES_FILE, Choices
from autometa.tuning.collect import names_memory, show_memory
from autometa.tuning.grid import Place, shares_work
from autometa.tuning.point import Point
from ingestion.contract import wants_standby
from ingestion.image_size import FORMAT_PX
from ingestion.outputs import RECORD_FILE

HEADROOM_BYTES, HEADROOM_SHARE = 1_700_000_000, 0.5
"""Memory that must be left above the peak: a run does things in other ways where it comes close to its budget. The
larger of these bytes and this share of the peak."""
VIEW_BYTES = 315 * 2**20
"""Of a further view in meta-test, which the run with more memory may have considered."""


def infer(place: Place, done: Sequence[tuple[Point, Path]], *, size_is_given: bool) -> Point | None:
    """The point without a run, from one that has run, whose files are in the folder beside it; None where it might be
    another run. Only of autometa's own submission, which is known not to look at its budget otherwise.
    `size_is_given`: the size of images does not depend on the memory."""
    cap = place.memory_budget_bytes
    if cap is None or not shares_work(place.submission):
        return None
    for point, folder in done:
        if point.status != "ok" or not _differs_in_memory_only(place, point):
            continue
        if (size_is_given or _has_least_size(folder)) and _is_same(cap, point, folder):
            larger = show_bytes(point.memory_budget_bytes or 0)
            reason = (
                f"not run: with {larger} the run held {show_memory(point.peak_bytes)} at most and left nothing out "
                "for memory, so this one would be the same"
            )
            own = {"status": "inferred", "reason": reason, "memory_budget_bytes": cap, "spent_s": 0.0}
            return point.model_copy(update=own)
    return None


def _differs_in_memory_only(place: Place, point: Point) -> bool:
    there = Place.of(point).model_copy(update={"memory_budget_bytes": place.memory_budget_bytes})
    return there == place and (point.memory_budget_bytes or 0) > (place.memory_budget_bytes or 0)


def _has_least_size(folder: Path) -> bool:
    """Whether the images of a run have the size below which little memory makes none of them."""
    file = folder / RECORD_FILE
    return file.exists() and json.loads(file.read_text("utf-8"))["image_size"] <= FORMAT_PX


def _is_same(cap: int, point: Point, folder: Path) -> bool:
    peak, time_s = point.peak_bytes, point.time_budget_s
    if peak is None or wants_standby(time_s, cap) != wants_standby(time_s, point.memory_budget_bytes):
        return False
    if peak + max(HEADROOM_BYTES, HEADROOM_SHARE * peak) > cap or names_memory(folder):
        return False
    file = folder / CHOICES_FILE
    serving = Choices.model_validate_json(file.read_text("utf-8")).meta_test_bytes if file.exists() else None
    return serving is not None and serving + VIEW_BYTES <= cap
