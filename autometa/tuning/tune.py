"""A grid of budgets from start to end: every point once, what follows from them, and one run that checks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autometa.bundles.shipped import find_bundle
from autometa.core.budget import stopwatch
from autometa.core.files import write_model
from autometa.core.fingerprints import digest
from autometa.core.units import show_duration
from autometa.tuning.budget_file import Budget, summarise
from autometa.tuning.curve import make_cells, with_gaps
from autometa.tuning.grid import Dropped, GridPlan, Place, describe, predict_costs, shares_work, show_seconds
from autometa.tuning.options import TuneOptions
from autometa.tuning.page import render_page
from autometa.tuning.point import Point
from autometa.tuning.prediction import expect
from autometa.tuning.recommend import Check, Recommendation, recommend
from autometa.tuning.sameness import infer
from autometa.tuning.store import BUDGET_FILE, CHECK_FOLDER, PAGE_FILE, RECOMMENDED_FILE, Store
from ingestion.disk import remove
from ingestion.outputs import write_atomically


class RunsPoints(Protocol):
    """Runs a point: see `autometa.tuning.runner.Runner`."""

    def run(self, place: Place, folder: Path, *, shares: bool = True) -> Point:
        """The point, from a run whose files are in `folder` afterwards."""
        ...


@dataclass
class Tuning:
    """One grid on a dataset. `report` gets a line for each point; `cores`: processors that may be used here."""

    dataset: Path
    options: TuneOptions
    plan: GridPlan
    runner: RunsPoints
    store: Store
    cores: int
    report: Callable[[str], None]
    _points: dict[str, Point] = field(default_factory=dict, init=False)
    _dropped: list[Dropped] = field(default_factory=list, init=False)
    _digests: dict[str, str] = field(default_factory=dict, init=False)

    def run(self) -> Budget:
        """All points that are not done, then what to recommend, checked by a run alone. What is known is on disk
        after each point."""
        elapsed = stopwatch()
        self._points, self._dropped = self._load(), list(self.plan.dropped)
        for name in (RECOMMENDED_FILE, CHECK_FOLDER):  # it may be another one in the end
            remove(self.store.folder / name)
        for number, place in enumerate(self.plan.places, start=1):
            where = f"[{number}/{len(self.plan.places)}] {_title(place)}"
            before = self._points.get(place.name)
            if before is not None and before.status != "failed":
                self.report(f"{where}: done before, {tell_point(before)}")
                continue
            if reason := self._too_late(number - 1, elapsed()):
                self._dropped.append(Dropped(place, reason))
                self.report(f"{where}: left out, {reason}")
                continue
            point = self._make(place, where)
            self.store.save(point)
            self._points[place.name] = point
            self.report(f"{where}: {tell_point(point)}")
            self.write(self._summarise())
        budget = self._summarise()
        budget = budget.model_copy(update={"recommendation": self._recommend(budget)})
        remove(self.store.shared)
        self.write(budget)
        return budget

    def _load(self) -> dict[str, Point]:
        """The points that are done, but for those of submissions whose files have changed since."""
        points, kept = self.store.load(), {}
        for name, point in points.items():
            if point.bundle and self._digest(point.submission) not in ("", point.bundle):
                self.report(
                    f"{_title(Place.of(point))}: runs again, as files of {point.submission} have changed"
                )
            else:
                kept[name] = point
        return kept

    def _digest(self, submission: str) -> str:
        """Of the files of a submission; "" where it is none of the grid."""
        if submission not in self._digests:
            path = find_bundle(submission, "--submission") if submission in self.options.submission else None
            self._digests[submission] = "" if path is None else digest(path, self.store.folder)
        return self._digests[submission]

    def write(self, budget: Budget) -> None:
        """`budget.json`, `recommended.yaml` and the page."""
        folder = self.store.folder
        write_model(folder / BUDGET_FILE, budget)
        write_atomically(folder / PAGE_FILE, render_page(budget))
        if budget.recommendation is not None:
            write_atomically(folder / RECOMMENDED_FILE, budget.recommendation.yaml())

    def _make(self, place: Place, where: str) -> Point:
        """A point, inferred or run, with what was expected of it before."""
        done = self._done(place)
        if self.options.skip_same:
            files = [(point, self._files(point)) for point in done]
            if same := infer(place, files, size_is_given=self.options.image_size != "auto"):
                return same
        expected = expect(place, done)
        told = "" if expected.total_s is None else f", about {expected.total_s:.0f} s of work expected"
        self.report(f"{where}: runs{told}")
        elapsed = stopwatch()
        point = self.runner.run(place, self.store.run_folder(place))
        spent_s = round(elapsed(), 3)
        predicted = dict(point.predicted_s)
        if expected.total_s is not None:
            predicted["total"] = round(expected.total_s, 3)
        own = {
            "bundle": self._digest(place.submission),
            "predicted_s": predicted,
            "predicted_peak_bytes": expected.peak_bytes,
            "spent_s": spent_s,
        }
        return point.model_copy(update=own)

    def _done(self, place: Place) -> list[Point]:
        """Points of the same submission that are there."""
        return [point for point in self._points.values() if point.submission == place.submission]

    def _files(self, point: Point) -> Path:
        return self.store.run_folder(Place.of(point)) / "ingestion"

    def _too_late(self, done: int, spent_s: float) -> str:
        """Why the next point does not run, by the time that is left for all of them, or ""."""
        within_s, places = self.options.within, self.plan.places
        if within_s is None:
            return ""
        next_s = predict_costs(places)[done]
        left_s = within_s - spent_s - self.plan.check_s
        if next_s <= left_s or done == 0:
            return ""
        return f"about {show_seconds(next_s)}, {show_seconds(max(left_s, 0))} are left of --within"

    def _summarise(self) -> Budget:
        wanted = [self._points[place.name] for place in self.plan.places if place.name in self._points]
        points = with_gaps(wanted)
        budget = summarise(
            points,
            self._dropped,
            dataset=self.dataset.resolve().name,
            cores=self.cores,
            target=self.options.target_score,
        )
        largest_s = next((p.spent_s for p in points if budget.largest == p.limits), None)
        spent_s = round(sum(point.spent_s for point in points), 3)
        return budget.model_copy(update={"spent_s": spent_s, "largest_s": largest_s})

    def _recommend(self, budget: Budget) -> Recommendation | None:
        """What to set, run again alone and without sharing."""
        found = recommend(make_cells(budget.points), self.dataset, self.options, self.cores)
        if found is None:
            return None
        promised = next(
            point
            for point in budget.points
            if (point.submission, point.limits) == (found.submission, found.limits)
        )
        self.report(f"recommended: {found.why}; it runs once more, alone")
        alone = self.runner.run(Place.of(promised), self.store.folder / CHECK_FOLDER, shares=False)
        return found.model_copy(update={"check": _check(promised, alone)})


def _check(promised: Point, alone: Point) -> Check:
    """`promised` is of the repeat that ran again, so that both answered the same tasks. A run alone that does not fit
    has no score that counts."""
    return Check(
        promised_score=promised.score or 0.0,
        promised_ci95=promised.ci95,
        promised_s=promised.total_s or 0.0,
        score=alone.score if alone.has_score else None,
        seconds=alone.total_s,
        reason=alone.reason,
    )


def _title(place: Place) -> str:
    parts = [] if place.submission == "autometa" else [place.submission]
    parts.append(describe(place))
    parts += [f"repeat {place.repeat + 1}"] if place.repeat else []
    return ", ".join(parts)


def tell_point(point: Point) -> str:
    """What came of a point, in a line."""
    if point.status != "ok":
        return f"{point.status.replace('_', ' ')}: {point.reason}"
    width = "" if point.ci95 is None else f" ± {point.ci95:.1f}"
    parts = ["no score" if point.score is None else f"{point.score:.1f}{width} %"]
    if point.total_s is not None:
        charged = f", of which {point.charged_s:.0f} s of shared work" if point.charged_s >= 0.5 else ""
        parts.append(f"{point.total_s:.1f} s{charged}")
    if point.peak_bytes is not None:
        parts.append(f"{point.peak_bytes / 1e9:.2f} GB")
    return ", ".join(parts)


def describe_plan(plan: GridPlan) -> list[str]:
    """The plan for people: every point with what it is predicted to take here, and what is left out."""
    lines = [
        f"{_title(place)}: about {show_seconds(seconds)}"
        + ("" if shares_work(place.submission) else ", in full: only runs of autometa share work")
        for place, seconds in zip(plan.places, plan.seconds, strict=True)
    ]
    if plan.places:
        lines.append(f"what is recommended, run again alone: up to {show_duration(plan.check_s)}")
    lines += [f"left out: {_title(each.place)}: {each.reason}" for each in plan.dropped]
    return [*lines, f"{len(plan.places)} points, about {show_seconds(plan.total_s)} together"]
