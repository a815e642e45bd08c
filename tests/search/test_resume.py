"""A killed search goes on where it was: the study, its journal, the learner of the earlier run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import colour_pool

from autometa.backbones import View
from autometa.core import journals
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.files import DESCRIPTION
from autometa.core.journals import cut_damaged_end
from autometa.core.settings import Settings
from autometa.core.time_policy import TimePolicy
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.member import plain_member
from autometa.evaluation.validation_episodes import Answer
from autometa.heads import HEADS
from autometa.model.artifact import load_description
from autometa.model.fitted_learner import FittedLearner
from autometa.search.candidates import FamilyCandidate, HeadCandidate, Outcome
from autometa.search.ensembles import WeightedCandidate
from autometa.search.final_choice import FinalChoice
from autometa.search.resume import JOURNAL, earlier_results, load_earlier
from autometa.search.search import RESUMED, Search
from autometa.search.study import TrialResult
from autometa.search.trials import Trials
from autometa.systems.autometa import Controller

SMALL, LARGE, TUNED = View("net", 64), View("net", 128), View("net", 64, variant="tuned")


class Attempts:
    """Measures candidates and writes the journal in `folder` (None: none): better the later their head stands in the
    table, better still on the large view; `qda` is pruned, `knn` fails, and after `killed_after` of them the process
    is gone."""

    def __init__(self, folder: Path | None = None, killed_after: int = 10_000) -> None:
        self.tried: list[HeadCandidate] = []
        self._folder, self._killed_after = folder, killed_after

    def __call__(self, candidate: Any) -> Outcome:
        if len(self.tried) == self._killed_after:
            raise KeyboardInterrupt
        self.tried.append(candidate)
        outcome = self.outcome(candidate)
        if self._folder is not None:
            journals.append(self._folder / JOURNAL, outcome.record())
        return outcome

    def outcome(self, candidate: HeadCandidate) -> Outcome:
        if candidate.head == "qda":
            return Outcome(candidate, "pruned", 0.0, first_look_accuracy=0.99)
        if candidate.head == "knn":
            return Outcome(candidate, "failed", 0.0, note="no luck")
        mean = 0.02 * list(HEADS).index(candidate.head) + 0.1 * (candidate.view.px == 128)
        return Outcome(candidate, "ok", 0.0, Answer((), np.full(20, mean)))


def explored(
    folder: Path | None, views: list[View], killed_after: int = 10_000
) -> tuple[Search, list[HeadCandidate]]:
    """A search that goes on with the journal in a folder, and what it has tried."""
    attempts = Attempts(folder, killed_after)
    search = Search(views, attempts, seed=0, earlier=earlier_results(folder) if folder else ())
    try:
        search.explore(lambda: True)
    except KeyboardInterrupt:
        assert killed_after < 10_000
    return search, attempts.tried


def test_a_killed_search_measures_its_best_again_and_then_goes_on(tmp_path: Path) -> None:
    _, whole = explored(None, [SMALL, LARGE])
    _, before = explored(tmp_path, [SMALL, LARGE], killed_after=len(whole) - 6)
    search, after = explored(tmp_path, [SMALL, LARGE])
    again = [c for c in after if c.origin == "resumed"]
    assert after[: len(again)] == again and len(again) == 2 * RESUMED  # on both views
    assert again[0].view == LARGE
    assert all(c in before for c in again)
    assert {"qda", "knn"}.isdisjoint(c.head for c in again)
    new = after[len(again) :]
    failed = [c for c in before if c.head == "knn"]
    assert new == [*failed, *whole[len(before) :]]
    assert len(search.earlier) == len(before) - len(failed)
    assert [o.candidate for o in search.outcomes] == after


def test_the_sampler_knows_what_earlier_runs_have_found(tmp_path: Path) -> None:
    class LikesTim(Attempts):
        def outcome(self, candidate: HeadCandidate) -> Outcome:
            return Outcome(candidate, "ok", 0.0, Answer((), np.full(20, float(candidate.head == "tim"))))

    Search([SMALL], LikesTim(tmp_path), seed=0).explore(lambda: True)
    informed, ignorant = LikesTim(), LikesTim()
    search = Search([SMALL], informed, seed=0, earlier=earlier_results(tmp_path))
    search.refine(lambda: True, len(search.earlier) + 10)
    assert {c.origin for c in informed.tried} == {"sampler"}
    Search([SMALL], ignorant, seed=0).refine(lambda: True, 10)
    heads = [[c.head for c in attempts.tried] for attempts in (informed, ignorant)]
    assert heads[0].count("tim") > heads[1].count("tim") + 2


def test_trials_of_earlier_runs_count_for_the_most_that_there_may_be(tmp_path: Path) -> None:
    explored(tmp_path, [SMALL])
    attempts = Attempts()
    search = Search([SMALL], attempts, seed=0, earlier=earlier_results(tmp_path))
    search.refine(lambda: True, len(search.earlier))
    assert not attempts.tried


def test_views_that_are_no_more_are_left_out_and_new_ones_come(tmp_path: Path) -> None:
    search, _ = explored(tmp_path, [SMALL])
    search.widen([TUNED], lambda: True)
    resumed, tried = explored(tmp_path, [LARGE, SMALL])
    assert {result.params["view"] for result in resumed.earlier} == {str(SMALL)}
    assert not [c for c in tried if c.view == TUNED]
    again = [c.view for c in tried if c.origin == "resumed"]
    assert again.count(SMALL) == again.count(replace(SMALL, flip=True)) == RESUMED
    assert LARGE in {c.view for c in tried}
    before = len(resumed.outcomes)
    resumed.widen([TUNED], lambda: True)
    assert {o.candidate.view for o in resumed.outcomes[before:]} == {TUNED}  # tuned anew, measured anew


def test_views_of_the_same_backbones_come_back(tmp_path: Path) -> None:
    explored(tmp_path, [LARGE])
    search, tried = explored(tmp_path, [SMALL])
    assert {c.view.px for c in tried if c.origin == "resumed"} == {LARGE.px}
    assert {result.params["view"] for result in search.earlier} == {str(LARGE)}
    assert SMALL in {c.view for c in tried if c.origin == "first guess"}
    _, other = explored(tmp_path, [View("other", 64)])
    assert {c.view.backbone for c in other} == {"other"}


def test_a_second_kill_loses_nothing_of_the_first_run(tmp_path: Path) -> None:
    _, first = explored(tmp_path, [SMALL], killed_after=12)
    _, second = explored(tmp_path, [SMALL], killed_after=RESUMED + 3)
    third, _ = explored(tmp_path, [SMALL])
    done = [c for c in (*first, *second) if c.head != "knn"]
    assert len(third.earlier) == len({c.identity for c in done})


@pytest.mark.parametrize("tail", ['{"op_code": 4, "worker', "\x00\x00\x00", "7\n", '{"whole": 1}\n{"half'])
def test_half_a_line_at_the_end_is_cut_off(tmp_path: Path, tail: str) -> None:
    file = tmp_path / JOURNAL
    file.write_text('{"a": 1}\n{"b": 2}\n' + tail)
    whole = '{"a": 1}\n{"b": 2}\n' + ('{"whole": 1}\n' if "whole" in tail else "")
    assert cut_damaged_end(file) == len(tail) - len(whole) + 18
    assert file.read_text() == whole
    assert cut_damaged_end(file) == 0
    assert cut_damaged_end(tmp_path / "none") == 0


def test_a_journal_is_read_wherever_it_was_cut(tmp_path: Path) -> None:
    file = tmp_path / JOURNAL
    explored(tmp_path, [SMALL], killed_after=5)
    content = file.read_bytes()
    found = []
    for cut in np.linspace(0, len(content), 12).astype(int):
        file.write_bytes(content[:cut])
        cut_damaged_end(file)
        found.append(len(Search([SMALL], Attempts(), seed=0, earlier=earlier_results(tmp_path)).earlier))
    assert found == sorted(found)
    assert found[0] == 0 and found[-1] == 5


def test_the_journal_tells_the_search_what_was_asked_for(tmp_path: Path) -> None:
    family = FamilyCandidate("maml", "net", 64, {"rate": 0.5, "test_steps": 3})
    flipped = HeadCandidate(replace(LARGE, flip=True), "ridge", {"transform": "l2", "strength": 2.0})
    for outcome in (
        Outcome(family, "ok", 1.0, Answer((), np.full(20, 0.5))),
        Outcome(flipped, "pruned", 0.1, first_look_accuracy=0.2),
        Outcome(flipped, "timeout", 0.1),
        Outcome(replace(flipped, params={"transform": "l2", "strength": 1.0}), "pruned", 0.1),
        Outcome(HeadCandidate(LARGE, "of an older version", {}), "ok", 0.1, Answer((), np.full(20, 0.5))),
    ):
        journals.append(tmp_path / JOURNAL, outcome.record())
    assert earlier_results(tmp_path) == [
        TrialResult(
            {"view": "net@128", "flip": True, "head": "ridge", "transform": "l2", "ridge_strength": 2.0},
            first_look_accuracy=0.2,
        ),
    ]


SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 5), queries_per_class=3)
TEST = TestSpec(tasks=20, episodes=SPEC, images=100, protocol="within-domain")


def controller(folder: Path, backbone: str, lines: list[str], trials: int = 24) -> Controller:
    settings = Settings(
        backbones=(backbone,),
        resolutions=(32,),
        validation_episodes=20,
        max_trials=trials,
        tune_steps=0,
        families=(),
    )
    budget = TimeBudget.of(120)
    limits = Limits(budget, budget, MemoryBudget(8 * 2**30))
    return Controller(settings, TEST, limits, folder, lines.append, start_s=1.0)


def journal_of(folder: Path) -> list[dict[str, str]]:
    """Lines about candidates."""
    rows = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
    return [row for row in rows if "head" in row]


@pytest.mark.slow
def test_a_run_goes_on_with_the_journals_and_the_learner_of_a_killed_one(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    pool = colour_pool(classes=16)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Controller, "_mix", killed)
        replace(controller(tmp_path, tiny_backbone, []), policy=TimePolicy(save_every_s=0.0)).run(pool)
    saved = load_description(tmp_path)
    assert saved.validation["stage"] == "search"
    before = journal_of(tmp_path)
    with (tmp_path / JOURNAL).open("a") as stream:
        stream.write('{"half')
    (tmp_path / ".statistics-1.safetensors.17").write_text("half")
    lines: list[str] = []
    run = controller(tmp_path, tiny_backbone, lines, trials=200)
    assert run.bootstrap().members == saved.members
    assert load_description(tmp_path) == saved
    run.run(pool)
    assert load_description(tmp_path).validation["stage"] == "final"
    assert not list(tmp_path.glob(".*"))
    told = "\n".join(lines)
    assert "serves at once" in told and "trials of earlier runs are known" in told
    assert f"{JOURNAL}: its damaged end is cut off (6 bytes)" in told
    rows = journal_of(tmp_path)
    assert rows[: len(before)] == before
    assert rows[len(before)]["origin"] == "resumed"
    assert "sampler" in {row["origin"] for row in rows[len(before) :]}
    assert {row["origin"] for row in before} >= {"first guess", "carried on"}


def test_a_kill_while_learners_are_trained_leaves_the_ensemble_of_what_is_known(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    so_far, known = FinalChoice.so_far, []

    def better(choice: FinalChoice) -> tuple[list[WeightedCandidate], Answer | None]:
        members, answer = so_far(choice)
        assert answer is not None
        known.append(members)
        return members, replace(answer, accuracies=answer.accuracies + len(known))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FinalChoice, "so_far", better)
    monkeypatch.setattr(Trials, "_try_families", killed)
    with pytest.raises(KeyboardInterrupt):
        controller(tmp_path, tiny_backbone, []).run(colour_pool(classes=16))
    saved = load_description(tmp_path)
    assert saved.validation["stage"] == "search" and saved.validation["normalised_accuracy"] > 1
    assert len(saved.members) == len(known[-1]) > 1


def test_a_learner_of_an_earlier_run_is_kept_whatever_networks_it_has(
    tmp_path: Path, tiny_backbone: str
) -> None:
    """It may have a tuned copy of a network, which this run knows nothing of."""
    run = controller(tmp_path, tiny_backbone, [])
    learner = replace(run.bootstrap(), members=(plain_member(View(tiny_backbone, 48, variant="tuned")),))
    run._forecast._pixel_s[tiny_backbone] = 1e-6
    learner.save = lambda folder: None  # type: ignore[method-assign]
    assert run._incumbent.keep(learner) is learner


def test_a_better_final_learner_of_an_earlier_run_stays(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = colour_pool(classes=16)
    first = controller(tmp_path, tiny_backbone, []).run(pool)
    file = tmp_path / DESCRIPTION
    description = json.loads(file.read_text())
    description["validation"]["normalised_accuracy"] = 1.5
    file.write_text(json.dumps(description))
    lines: list[str] = []
    mix = Controller._mix

    def watched(run: Controller, *args: Any) -> None:
        assert load_description(tmp_path).validation["normalised_accuracy"] == 1.5  # it serves until the end
        mix(run, *args)

    monkeypatch.setattr(Controller, "_mix", watched)
    again = controller(tmp_path, tiny_backbone, lines).run(pool)
    assert again.members == first.members
    assert load_description(tmp_path).engines.keys() == description["engines"].keys() != set()
    assert load_description(tmp_path).validation["normalised_accuracy"] == 1.5
    assert any("the learner of the earlier run is better" in line for line in lines)


@pytest.mark.parametrize("damage", ['{"format": "autometa-lea', '{"format": "autometa-learner-0"}'])
def test_a_learner_that_can_not_be_used_makes_room_for_the_usual_bootstrap(
    tmp_path: Path, tiny_backbone: str, damage: str
) -> None:
    (tmp_path / DESCRIPTION).write_text(damage)
    lines: list[str] = []
    controller(tmp_path, tiny_backbone, lines).bootstrap()
    assert load_description(tmp_path).validation == {"stage": "bootstrap"}
    assert any(
        line.startswith("the learner of an earlier run cannot be used: ArtifactError") for line in lines
    )


def test_a_bootstrap_of_an_earlier_run_is_made_anew(tmp_path: Path, tiny_backbone: str) -> None:
    controller(tmp_path, tiny_backbone, []).bootstrap()
    assert load_earlier(tmp_path, print) is None
    assert FittedLearner.load(tmp_path).validation == {"stage": "bootstrap"}
