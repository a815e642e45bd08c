"""What training steps take of the memory is predicted before they are made, and parts of them are chosen by it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from learner_cases import TINY, held_out, pool_source, red_pool

from autometa.core import tensor_memory
from autometa.core.budget import UNLIMITED, MemoryBudget, TimeBudget, own_bytes
from autometa.core.errors import TooLittleMemory
from autometa.core.tensor_memory import measure_growth, measure_peak
from autometa.data.episodes import EpisodeSpec
from autometa.learners import tail_classification, training_memory
from autometa.learners.encoder import EncoderSpec, build_encoder
from autometa.learners.prepared import PreparedImages
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.tail_classification import BATCH, LEAST_PART, TunedBackbone, tune_tail
from autometa.learners.training import Training, TrainingRecord
from autometa.learners.training_memory import (
    LEAST_RATIO,
    MIB,
    MOST_RATIO,
    StepRecord,
    TrainingMemory,
    blank_episode,
    held_bytes,
)
from autometa.learners.training_settings import TrainingSettings

SPEC = EpisodeSpec(ways=(5, 5), shots=(3, 3), queries_per_class=4)
IMAGES = 5 * 7
"""Of an episode."""
ROOMY = 2**40


@pytest.fixture(autouse=True)
def _only_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps so tiny take less than what libraries do beside them: what is measured are the bytes of tensors."""
    monkeypatch.setattr(training_memory, "SCRATCH", 1.0)
    monkeypatch.setattr(training_memory, "LIBRARY_BYTES", 0)
    for module in (training_memory, tail_classification):
        monkeypatch.setattr(module, "measure_growth", measure_peak)


def room_of(n_bytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many bytes are free, on any device."""
    monkeypatch.setattr(training_memory, "room_bytes", lambda *_: n_bytes)
    monkeypatch.setattr(tail_classification, "room_bytes", lambda *_: n_bytes)


def test_the_first_step_of_a_process_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    measure = training_memory.StepMemory._measure_alone

    def counted(memory: Any, episodes: Any) -> tuple[int, int]:
        found = measure(memory, episodes)
        sizes.append(found[0])
        return found

    monkeypatch.setattr(training_memory.StepMemory, "_measure_alone", counted)
    trained()
    assert len(sizes) == 2
    monkeypatch.setattr(training_memory, "starts_cold", lambda _: True)
    trained()
    assert sizes[2] == sizes[3] == sizes[0] and sizes[4] == sizes[1]


def trained(name: str = "prototypical", meta_batch: int = 4, **settings: Any) -> TrainingRecord:
    """Two steps of a tiny learner, planned."""
    recipe = Recipe(learner=name, encoder=TINY)
    pool = red_pool(px=TINY.px)
    training = Training(
        build_learner(recipe),
        pool_source(pool, SPEC, classes=10),
        held_out(pool, SPEC, 10, episodes=2),
        TrainingSettings(max_steps=2, meta_batch=meta_batch, **settings),
        UNLIMITED,
        memory=MemoryBudget(ROOMY),
    )
    return training.run()


@pytest.mark.medium
@pytest.mark.parametrize(
    "name",
    ["prototypical", "finetune", "metadelta", "maml", "fomaml", "anil", "mann"],
)
def test_a_step_takes_what_was_predicted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    room_of(ROOMY, monkeypatch)
    memory = trained(name).memory
    assert memory is not None and memory.measured_bytes is not None
    assert memory.predicted_bytes == pytest.approx(memory.measured_bytes, rel=0.25)
    assert memory.weights_bytes == sum(
        p.nbytes for p in build_learner(Recipe(learner=name, encoder=TINY)).parameters()
    )


@pytest.mark.medium
def test_second_order_takes_more_than_first() -> None:
    second, first = (trained(name).memory for name in ("maml", "fomaml"))
    assert second is not None and first is not None
    assert second.predicted_bytes > 1.1 * first.predicted_bytes


def test_as_many_episodes_at_once_as_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    room_of(ROOMY, monkeypatch)
    whole = trained()
    assert whole.memory is not None
    room_of(whole.memory.predicted_bytes - 1, monkeypatch)
    parts = trained()
    assert parts.memory is not None and parts.memory.measured_bytes is not None
    assert parts.memory.predicted_bytes < 0.6 * whole.memory.predicted_bytes
    assert parts.memory.measured_bytes == pytest.approx(parts.memory.predicted_bytes, rel=0.25)


def test_without_room_for_an_episode_there_is_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    room_of(2**10, monkeypatch)
    with pytest.raises(TooLittleMemory, match=r"one episode of 35 images takes \d+ MiB, 0 MiB are left"):
        trained()


@pytest.mark.medium
def test_planning_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    room_of(ROOMY, monkeypatch)
    planned = trained("maml", validate_every=1)
    monkeypatch.setattr(training_memory.StepMemory, "plan", lambda *_: None)
    plain = trained("maml", validate_every=1)
    assert plain.memory is None
    assert planned.best.log_loss == plain.best.log_loss


def test_tasks_go_one_after_the_other_where_fewer_have_room_than_there_are_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    learner = build_learner(Recipe(learner="maml", encoder=TINY))
    assert learner.count_at_once(8) == 4
    learner.limit_at_once(4, 8)
    assert learner.count_at_once(8) == 4
    learner.limit_at_once(3, 8)
    assert learner.count_at_once(8) == 1


def test_a_blank_episode_is_as_large_as_the_largest() -> None:
    source = pool_source(red_pool(), EpisodeSpec((2, 5), (1, 3), 4), unlabelled=2)
    episode = blank_episode(source, 2)
    drawn = [source.draw(1) for _ in range(20)]
    assert episode.support.shape == (1, 6, 3, 8, 8) and episode.query.shape[1] == 8
    assert episode.unlabelled is not None and episode.unlabelled.shape[1] == 4
    assert max(e.support.shape[1] // int(e.ways) for e in drawn) == 3
    assert source.sampler.largest() == (5, 3, 4, 2)


def test_a_prediction_grows_with_images_and_is_corrected_within_bounds() -> None:
    memory = TrainingMemory.of_two_steps((2, 120), (3, 170), held_bytes=1000, device="cuda")
    assert memory == TrainingMemory(1000, 20.0, 50.0)
    assert memory.peak_bytes(10) == 1520
    assert [memory.count_fitting(room) for room in (1520, 1519, 1069, 0)] == [10, 9, 0, 0]
    assert memory.corrected(10, 0).peak_bytes(10) == 1520
    assert memory.corrected(10, 1780).peak_bytes(10) == 1780
    assert memory.corrected(10, 1780).count_fitting(1780) == 10
    assert memory.corrected(10, 10**6).ratio == MOST_RATIO
    assert memory.corrected(10, 0).ratio == LEAST_RATIO
    on_cpu = TrainingMemory.of_two_steps((2, 120), (3, 170), held_bytes=1000, device="cpu")
    assert on_cpu == memory, "with what else a CPU takes"
    assert held_bytes([torch.zeros(3)], "adam") == 36 and held_bytes([torch.zeros(3)], "sgd") == 12


def test_growth_is_that_of_the_process_with_all_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Semaphore(0)

    def look() -> int:
        found = own_bytes()
        looked.release()
        return found

    def work() -> None:
        threads = [threading.Thread(target=lambda: kept.append(torch.ones(8 * MIB))) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        while looked.acquire(blocking=False):
            pass
        for _ in range(2):  # the first one may have begun before
            assert looked.acquire(timeout=60)
        kept.clear()

    kept: list[torch.Tensor] = []
    monkeypatch.setattr(tensor_memory, "own_bytes", look)
    assert 56 * MIB < measure_growth(work, "cpu") < 200 * MIB


def test_what_is_told_of_a_step() -> None:
    line = str(StepRecord(MIB, 3 * MIB, 2 * MIB))
    assert line == "memory of a training step: 3.0 MiB predicted, 2.0 MiB measured, beside 1.0 MiB of weights"
    assert "not measured" in str(StepRecord(1, 1))


def tuned(backbone: str, trainable: int = 2, steps: int = 3) -> TunedBackbone:
    torch.manual_seed(0)
    encoder: Any = build_encoder(EncoderSpec(network=backbone, px=32, trainable=trainable))
    pool = red_pool(px=32)
    return tune_tail(
        encoder,
        PreparedImages(pool.images),
        torch.from_numpy(pool.labels),
        TimeBudget.of(600),
        steps,
        MemoryBudget(ROOMY),
    )


@pytest.mark.medium
def test_tuning_takes_what_was_predicted_and_parts_of_a_batch_learn_the_same(
    tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_of(ROOMY, monkeypatch)
    whole = tuned(tiny_backbone)
    assert whole.memory is not None and whole.memory.measured_bytes is not None
    assert whole.memory.predicted_bytes == pytest.approx(whole.memory.measured_bytes, rel=0.25)
    room_of(whole.memory.predicted_bytes - 1, monkeypatch)
    parts = tuned(tiny_backbone)
    assert parts.memory is not None and parts.memory.measured_bytes is not None
    assert parts.memory.measured_bytes < whole.memory.measured_bytes
    for name, value in whole.state.items():
        torch.testing.assert_close(parts.state[name], value, rtol=1e-3, atol=1e-4)
    room_of(1, monkeypatch)
    with pytest.raises(TooLittleMemory, match=f"tuning with {LEAST_PART} images at once"):
        tuned(tiny_backbone)
    assert BATCH > LEAST_PART
