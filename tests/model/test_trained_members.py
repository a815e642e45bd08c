"""Trained learners beside heads in one fitted learner: saved, loaded, averaged, dropped first when late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import FakeClock, colour_pool

from autometa.backbones import View
from autometa.backbones.shelf import BackboneShelf
from autometa.core.budget import TimeBudget
from autometa.core.errors import ArtifactError
from autometa.data.episodes import EpisodeSpec
from autometa.evaluation.member import Member, plain_member
from autometa.evaluation.mixing import average
from autometa.learners.trained import TrainedCosts, TrainedLearner
from autometa.model.fitted_learner import FittedLearner
from autometa.model.trained_ensemble import TrainedMember
from autometa.planning.meta_test import MetaTestSchedule
from autometa.search.families import find_family

POOL = colour_pool()
SPEC = EpisodeSpec((2, 5), (1, 5), 4)
CHEAP = TrainedCosts(1e-6, 1e-6)


def trained(name: str, backbone: str, **changes: Any) -> TrainedMember:
    learner = TrainedLearner.untrained(find_family(name).recipe(backbone, 32, SPEC))
    with torch.no_grad():
        for parameter in learner.learner.parameters():
            parameter.mul_(1.01)
    return TrainedMember(
        name, learner, **(dict[str, Any](weight=2.0, temperature=0.5, costs=CHEAP) | changes)
    )


def learner_of(backbone: str, *members: TrainedMember, weight: float = 1.0) -> FittedLearner:
    head = plain_member(View(backbone, 32)).model_copy(update={"weight": weight})
    return FittedLearner((head,), BackboneShelf("cpu"), trained=members)


def episode(ways: int = 3, shots: int = 3) -> tuple[Any, Any, Any]:
    rows = np.array([POOL.rows_of_class[c][: shots + 4] for c in range(ways)])
    return (
        POOL.images[rows[:, :shots].ravel()],
        np.arange(ways).repeat(shots),
        POOL.images[rows[:, shots:].ravel()],
    )


def answer(learner: FittedLearner, ways: int = 3, shots: int = 3) -> Any:
    support, labels, query = episode(ways, shots)
    return learner.fit(support, labels, ways).predict(query)


@pytest.fixture
def mixed(tiny_backbone: str) -> FittedLearner:
    return learner_of(tiny_backbone, trained("pmf", tiny_backbone))


def test_members_of_both_kinds_are_averaged_in_log_probabilities(
    mixed: FittedLearner, tiny_backbone: str
) -> None:
    (member,) = mixed.trained
    support, labels, query = episode()
    head = np.log(answer(learner_of(tiny_backbone)))
    own = np.log(member.learner.fit(support, labels, 3).predict(query)) / member.temperature
    expected = average([torch.from_numpy(head), torch.from_numpy(own).log_softmax(-1)], [1.0, 2.0]).exp()
    np.testing.assert_allclose(answer(mixed), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("family", ["pmf", "proto_maml", "adapters"])
def test_renaming_the_classes_renames_the_answer(family: str, tiny_backbone: str) -> None:
    learner = learner_of(tiny_backbone, trained(family, tiny_backbone))
    support, labels, query = episode(4)
    renamed = np.array([2, 0, 3, 1])
    plain = learner.fit(support, labels, 4).predict(query)
    other = learner.fit(support, renamed[labels], 4).predict(query)
    np.testing.assert_allclose(other[:, renamed], plain, rtol=1e-3, atol=1e-5)


def test_a_learner_of_both_kinds_survives_saving(mixed: FittedLearner, tmp_path: Path) -> None:
    mixed.save(tmp_path)
    again = FittedLearner.load(tmp_path)
    assert [m.name for m in again.trained] == ["pmf"]
    assert again.trained[0].costs == CHEAP and again.trained[0].temperature == 0.5
    np.testing.assert_allclose(answer(again), answer(mixed), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(answer(again, 5, 1), answer(mixed, 5, 1), rtol=1e-6, atol=1e-9)


@pytest.mark.medium
def test_members_of_an_earlier_state_are_removed_once_the_new_one_is_described(
    mixed: FittedLearner, tiny_backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed.save(tmp_path)
    new = learner_of(tiny_backbone, trained("anil", tiny_backbone))

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("autometa.model.fitted_learner.save_learner", die)
        with pytest.raises(KeyboardInterrupt):
            new.save(tmp_path)
    assert [m.name for m in FittedLearner.load(tmp_path).trained] == ["pmf"]
    new.save(tmp_path)
    assert [file.name for file in tmp_path.glob("member-*")] == ["member-anil"]
    learner_of(tiny_backbone).save(tmp_path)
    assert not list(tmp_path.glob("member-*")) and FittedLearner.load(tmp_path).trained == ()


def swap(folder: Path) -> None:
    """The tensors of the network in place of the backbone's, and the other way round."""
    content = json.loads((folder / "learner.json").read_text())
    content.pop("checksum")
    content["network"], content["backbone"] = content["backbone"], content["network"]
    (folder / "learner.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: (f / "learner.json").unlink(), r"member-pmf.learner\.json: no saved learner"),
        (lambda f: (f / "learner.json").write_text("{"), r"member-pmf.learner\.json: damaged"),
        (
            lambda f: next(f.glob("network-*")).write_bytes(b"x"),
            r"member-pmf.network-\w+\.safetensors: missing",
        ),
        (lambda f: next(f.glob("backbone-*")).unlink(), r"member-pmf.backbone-\w+\.safetensors: missing"),
        (swap, "member-pmf: its tensors do not fit"),
    ],
)
def test_damaged_members_are_named(damage: Any, named: str, mixed: FittedLearner, tmp_path: Path) -> None:
    mixed.save(tmp_path)
    damage(tmp_path / "member-pmf")
    with pytest.raises(ArtifactError, match=named):
        FittedLearner.load(tmp_path)


def test_members_name_no_folder_elsewhere(mixed: FittedLearner, tmp_path: Path) -> None:
    mixed.save(tmp_path)
    content = json.loads((tmp_path / "learner.json").read_text())
    content.pop("checksum")
    content["trained"][0]["folder"] = "../member-pmf"
    (tmp_path / "learner.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="not the name of a folder"):
        FittedLearner.load(tmp_path)


def test_artefacts_from_before_there_were_trained_members_are_loaded(
    tiny_backbone: str, tmp_path: Path
) -> None:
    learner_of(tiny_backbone).save(tmp_path)
    content = json.loads((tmp_path / "learner.json").read_text())
    content.pop("checksum")
    assert content.pop("trained") == []
    (tmp_path / "learner.json").write_text(json.dumps(content))
    assert FittedLearner.load(tmp_path).trained == ()


@pytest.mark.medium
def test_a_late_learner_drops_trained_members_first_and_for_good(tiny_backbone: str) -> None:
    dear = trained("anil", tiny_backbone, weight=1.0, costs=TrainedCosts(0.0, 5.0))
    cheap = trained("pmf", tiny_backbone)
    second = Member(backbone=tiny_backbone, px=48, head="centroid", params=plain_member(View("x", 1)).params)
    learner = learner_of(tiny_backbone, dear, cheap)
    learner.members += (second,)
    clock = FakeClock()
    learner.schedule = MetaTestSchedule(TimeBudget.of(1e6, clock), tasks_left=10, images=1000)
    answer(learner)

    def members() -> tuple[TrainedMember, ...]:
        return learner.trained_members.members

    assert members() == (cheap, dear), "with time enough all of them speak"
    clock.now += 1e6 - 40
    answer(learner)
    assert members() == (cheap,), "9 tasks of 5 s no longer fit in 40 s"
    clock.now -= 1e6 - 40
    answer(learner)
    assert members() == (cheap,), "it would have to prepare what it missed"
    one, both = (learner.schedule.cost_s(learner.members[:n], learner.store) for n in (1, 2))
    clock.now += learner.schedule.left_s() - (one + both) / 2
    predictor = learner.fit(*episode()[:2], 3)
    assert predictor.trained == [] and [m.px for m in predictor.members] == [32]


def test_a_member_that_is_slower_than_foretold_is_taken_for_that(tiny_backbone: str) -> None:
    learner = learner_of(tiny_backbone, trained("pmf", tiny_backbone))
    learner.schedule = MetaTestSchedule(TimeBudget.of(1e6, FakeClock()), tasks_left=10, images=1000)
    answer(learner)
    foretold_s = CHEAP.answering_s(1000, 9)
    learner.trained_members.drop_late(2 * foretold_s, seen=21, images=979, tasks=9)
    assert learner.trained_members.members == (), "it took thousands of times as long for the first task"
