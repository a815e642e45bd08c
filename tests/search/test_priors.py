"""Priors: the table, which datasets are near, what is asked for first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import benchmark_module, colour_pool, write_meta_album

from autometa.backbones import View
from autometa.core.budget import Limits, MemoryBudget, TimeBudget
from autometa.core.errors import ArtifactError
from autometa.core.settings import Settings
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer
from autometa.evaluation.validation_set import ValidationSet
from autometa.heads import HEADS
from autometa.search.candidates import HeadCandidate, Outcome
from autometa.search.priors import (
    MOST_PROPOSALS,
    TABLE,
    DatasetPrior,
    PriorCandidate,
    Priors,
    colourfulness,
    describe_dataset,
    edges,
    load_priors,
    proposals,
    proposed,
    two_tone,
)
from autometa.search.search import AT_ONCE, CARRIED_ON, SAFE, Search
from autometa.systems.autometa import Controller

ROOT = Path(__file__).parents[2]

DEEP = ("last", "stage4", "stage3")
SMALL, LAYERED, LARGE = View("net", 64), View("net", 64, DEEP), View("net", 128)


def won(head: str, layers: tuple[str, ...] = ("last",), **changed: object) -> PriorCandidate:
    params = {"transform": "l2", **HEADS[head].first_params(), **changed}
    return PriorCandidate(head=head, params=params, backbone="other", px=224, layers=layers, accuracy=0.5)


def row(name: str, *found: PriorCandidate, classes: float = 1.0, grey: float = 0.0) -> DatasetPrior:
    return DatasetPrior(dataset=name, features={"classes": classes, "grey": grey}, won=found)


def test_the_nearest_datasets_are_those_with_like_features_in_like_units() -> None:
    table = Priors(rows=(row("A", classes=100, grey=0.1), row("B", classes=300, grey=0.1),
                         row("C", classes=100, grey=0.9)))  # fmt: skip
    near = table.nearest({"classes": 140, "grey": 0.1}, 3)
    assert [r.dataset for r in near] == ["A", "B", "C"]
    assert table.nearest({"classes": 100, "grey": 0.8}, 1)[0].dataset == "C"
    assert [r.dataset for r in table.without({"A"}).nearest({"classes": 140, "grey": 0.1}, 1)] == ["B"]
    assert Priors().nearest({"classes": 1}) == []


def test_wishes_take_the_best_of_every_row_in_turn_on_the_first_view() -> None:
    rows = [
        row("A", won("ridge", strength=2.0), won("tim")),
        row("B", won("ridge", strength=2.0), won("qda", DEEP)),
    ]
    asked = proposals(rows, SMALL, [SMALL, LAYERED, LARGE])
    assert [proposal["head"] for proposal in asked] == ["ridge", "tim", "qda"]
    assert asked[0] == {
        "view": "net@64", "flip": False, "head": "ridge", "transform": "l2", "ridge_strength": 2.0
    }  # fmt: skip
    assert asked[2]["view"] == str(LAYERED) and asked[2]["qda_transform"] == "l2"
    assert proposals(rows, LARGE, [LARGE])[2]["view"] == "net@128"
    many = [row(str(n), won("ridge", strength=0.1 * n)) for n in range(1, 20)]
    assert len(proposals(many, SMALL, [SMALL])) == MOST_PROPOSALS


def test_the_search_asks_for_the_prior_first_and_carries_it_on() -> None:
    tried: list[HeadCandidate] = []

    def attempt(candidate: HeadCandidate) -> Outcome:
        tried.append(candidate)
        mean = 0.9 if candidate.params.get("strength") == 2.0 else 0.4
        return Outcome(candidate, "ok", 0.0, Answer((), np.full(20, mean)))

    good = proposals([row("A", won("ridge", strength=2.0))], SMALL, [SMALL])
    beyond = proposals([row("A", won("ridge", strength=1e6))], SMALL, [SMALL])
    unknown = [{**good[0], "view": "gone@64"}, {**good[0], "head": "gone"}]
    search = Search([SMALL, LARGE], attempt, seed=0, prior=[*unknown, *beyond, *good])
    search.explore(lambda: True)
    origins = [c.origin for c in tried[: SAFE + 1 + AT_ONCE]]
    assert origins == [*["first guess"] * SAFE, "prior", *["carried on"] * AT_ONCE]
    assert [c.view for c in tried if c.params.get("strength") == 2.0] == [
        SMALL, LARGE, View("net", 64, flip=True)
    ]  # fmt: skip
    assert sum(c.origin == "carried on" for c in tried) == 2 * CARRIED_ON
    assert search.outcomes[SAFE].record()["origin"] == "prior"


def test_features_tell_glyphs_from_photographs() -> None:
    rng = np.random.default_rng(0)
    glyph = np.full((4, 3, 32, 32), 255, np.uint8)
    glyph[:, :, 8:24, 14:18] = 0
    photo = rng.integers(60, 200, (4, 3, 32, 32)).astype(np.uint8)
    assert (colourfulness(glyph), two_tone(glyph)) == (0, 1)
    assert colourfulness(photo) > 0.2
    assert two_tone(photo) < 0.5
    flat = np.full((2, 3, 8, 8), 9, np.uint8)
    assert edges(flat) == 0 < edges(glyph) < 0.1 < edges(photo)


def test_features_of_a_pool_are_numbers_of_its_own_bench() -> None:
    pool = colour_pool(classes=16, per_class=14, datasets=2)
    few = ValidationSet.small(pool, EpisodeSpec(), np.random.default_rng(0))
    colours = torch.from_numpy(few.images).float().mean((2, 3)) / 255
    found = describe_dataset(pool, few, SMALL, colours)
    assert found["log_classes"] == pytest.approx(np.log(8))
    assert found["log_images_per_class"] == pytest.approx(np.log(14))
    assert found["centroid_accuracy"] > 0.5
    assert set(found) == set(load_priors().rows[0].features)
    unseen = describe_dataset(pool, few, SMALL)
    assert unseen == {name: value for name, value in found.items() if name != "centroid_accuracy"}
    assert len(load_priors().nearest(unseen, 2)) == 2


def test_the_table_that_is_shipped_fits_this_version() -> None:
    table = load_priors(TABLE)
    assert table.rows
    for one in table.rows:
        asked = proposals([one], SMALL, [SMALL, LAYERED], n=100)
        assert len(asked) == len(one.won) > 0
        tried: list[HeadCandidate] = []

        def attempt(candidate: HeadCandidate, tried: list[HeadCandidate] = tried) -> Outcome:
            tried.append(candidate)
            return Outcome(candidate, "failed", 0.0)

        search = Search([SMALL, LAYERED], attempt, seed=0, prior=asked)
        search.explore(lambda tried=tried, asked=asked: len(tried) < SAFE + len(asked))
        priors = sum(c.origin == "prior" for c in tried)
        assert len(asked) - SAFE <= priors <= len(asked), "all but those that are first guesses, too"


@pytest.mark.parametrize(
    "content", [None, '{"format": "autometa-priors-1", "rows": [', '{"format": "other"}']
)
def test_without_a_table_there_is_a_line_and_no_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    file, lines = tmp_path / "priors.json", list[str]()
    if content is not None:
        file.write_text(content)
    with pytest.raises(ArtifactError, match=r"priors\.json"):
        load_priors(file)
    monkeypatch.setattr("autometa.search.priors.load_priors", lambda: load_priors(file))
    assert proposed([SMALL], {}, (), lines.append) == []
    assert lines[0].startswith("no priors: ")


@pytest.mark.slow
def test_a_run_asks_priors_unless_told_not_to(tmp_path: Path, tiny_backbone: str) -> None:
    budget = TimeBudget.of(120)
    test = TestSpec(20, EpisodeSpec((2, 4), (1, 5), 3), 100, "within-domain")
    for name, asked in (("with", {}), ("off", {"priors": False}), ("none", {"priors_without": NAMES})):
        settings = Settings(
            backbones=(tiny_backbone,), resolutions=(32,), validation_episodes=10, max_trials=1,
            tune_steps=0, families=(), **asked,
        )  # fmt: skip
        (tmp_path / name).mkdir()
        limits = Limits(budget, budget, MemoryBudget(8 * 2**30))
        lines: list[str] = []
        Controller(settings, test, limits, tmp_path / name, lines.append, 1.0).run(colour_pool(classes=16))
        journal = (tmp_path / name / "journal.jsonl").read_text().splitlines()
        origins = [row["origin"] for row in map(json.loads, journal) if "head" in row]
        assert ("prior" in origins) == (name == "with")
        assert any(line.startswith("priors: ") for line in lines) == (name != "off")


NAMES = tuple(one.dataset for one in load_priors().rows)


def test_the_builder_keeps_the_best_and_leaves_out_what_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    builder = benchmark_module("priors")
    lines = [
        {
            "view": view,
            "head": "ridge",
            "params": {"transform": t, "strength": 1.0},
            "status": "ok",
            "accuracy": a,
        }
        for view, t, a in (
            ("net@64:last+stage4:flip", "l2", 0.9),
            ("net@64", "l2", 0.8),
            ("net@96:last+stage4", "l2", 0.85),
            ("net@64", "cl2n", 0.7),
        )
    ]
    found = builder.winners(lines)
    assert [(w.px, w.layers, w.accuracy) for w in found] == [
        (96, ("last", "stage4"), 0.85), (64, ("last",), 0.7)
    ]  # fmt: skip
    for name in ("ONE", "TWO"):
        write_meta_album(tmp_path / "data" / name, [8] * 6)
    table = tmp_path / "table.json"
    table.write_text(Priors(rows=(row("TWO", won("tim")), row("OLD", won("tim")))).model_dump_json())
    monkeypatch.setattr(builder, "searched", lambda pool, seconds, asked: lines)
    monkeypatch.setattr("sys.argv", ["priors.py", "--data", str(tmp_path / "data"), "--quick",
                                     "--exclude", "TWO", "--table", str(table)])  # fmt: skip
    builder.main()
    assert [r.dataset for r in load_priors(table).rows] == ["OLD", "ONE"]
    assert load_priors(table).rows[1].won == found
    printed = capsys.readouterr().out
    assert "priors/ONE/best" in printed and "priors/TWO" not in printed


def test_only_candidates_with_an_accuracy_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_backbone: str
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    builder = benchmark_module("priors")
    small = {"backbones": (tiny_backbone,), "resolutions": (32,), "validation_episodes": 10, "max_trials": 8}
    journal = builder.searched(colour_pool(classes=16), 60.0, small)
    assert journal and all(line["accuracy"] <= 1 and line["head"] for line in journal)
