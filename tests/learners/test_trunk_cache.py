"""Prepared images that memory has no room for lie in a mapped file; learners train on them all the same."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from learner_cases import held_out, pool_source, red_pool

from autometa.backbones.architecture import create_model
from autometa.backbones.catalogue import find_spec
from autometa.core.budget import UNLIMITED
from autometa.core.errors import BudgetExhausted
from autometa.data.episodes import EpisodeSpec
from autometa.learners import encoder as encoder_module
from autometa.learners import frozen_part
from autometa.learners import storage as storage_module
from autometa.learners.encoder import EncoderSpec, TailEncoder, build_encoder
from autometa.learners.recipe import Recipe, build_learner
from autometa.learners.storage import MEMORY, Storage
from autometa.learners.training import Training
from autometa.learners.training_settings import TrainingSettings

PX = 32
SPEC = EncoderSpec(network="test_resnet", px=PX, trainable=1)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
Usage = namedtuple("Usage", "total used free")


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return create_model(find_spec("test_resnet")).state_dict()


def on_disk(folder: Path) -> Storage:
    return Storage(memory_bytes=0, folder=folder)


def nameless_files(folder: Path) -> list[str]:
    """Files of a folder that this process has open or mapped, though they have no name."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if str(folder) in line and "(deleted)" in line]


@pytest.fixture(autouse=True)
def _tmp_is_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "_file_system", lambda _: "ext4")


def test_what_fits_stays_in_memory(tmp_path: Path) -> None:
    assert MEMORY.empty((3, 2), torch.float16).shape == (3, 2)
    Storage(memory_bytes=12, folder=tmp_path).empty((3, 2), torch.float16)
    assert Storage(memory_bytes=-5, folder=tmp_path).empty((0, 2), torch.float32).shape == (0, 2)


@pytest.mark.medium
@LINUX
def test_more_than_that_is_in_a_file_that_goes_with_its_tensor(tmp_path: Path) -> None:
    tensor = Storage(memory_bytes=11, folder=tmp_path).empty((3, 2), torch.float16)
    tensor[:] = torch.arange(6).view(3, 2)
    assert len(nameless_files(tmp_path)) == 1
    assert not any(tmp_path.iterdir())
    rows = tensor[torch.tensor([2, 0])]
    del tensor
    gc.collect()
    assert rows.tolist() == [[4, 5], [0, 1]]
    assert not nameless_files(tmp_path)


@pytest.mark.medium
def test_nothing_is_left_of_a_process_that_is_killed(tmp_path: Path) -> None:
    program = f"""
        import os, signal, torch
        from pathlib import Path
        from autometa.learners import storage
        storage._file_system = lambda _: "ext4"
        tensor = storage.Storage(0, Path({str(tmp_path)!r})).empty((1000, 10), torch.float32)
        tensor[:] = 1
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not any(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module.shutil, "disk_usage", lambda _: Usage(10**6, 0, 1000))
    tight = Storage(memory_bytes=100, folder=tmp_path)
    assert tight.room_bytes() == 800
    tight.empty((800,), torch.uint8)
    with pytest.raises(BudgetExhausted, match=rf"need 8.01e-07 GB.*{tmp_path} has 8e-07 GB.*set TMPDIR"):
        tight.empty((801,), torch.uint8)


def test_a_disk_that_fills_up_meanwhile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(storage_module, "_reserve", full)
    with pytest.raises(BudgetExhausted, match=r"No space left on device; use fewer images"):
        on_disk(tmp_path).empty((4,), torch.uint8)


def test_room_is_that_of_the_largest_file_allowed_and_none_in_memory_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5000, 5000))
    assert on_disk(tmp_path).room_bytes() == 5000
    monkeypatch.setattr(storage_module, "_file_system", lambda _: "tmpfs")
    assert Storage(memory_bytes=70, folder=tmp_path).room_bytes() == 70
    with pytest.raises(BudgetExhausted, match="lies in memory itself"):
        on_disk(tmp_path).empty((4,), torch.uint8)
    gone = on_disk(tmp_path / "gone")
    monkeypatch.setattr(storage_module, "_file_system", lambda _: "ext4")
    assert gone.room_bytes() == 0
    with pytest.raises(BudgetExhausted, match=r"No such file or directory: .*gone"):
        gone.empty((4,), torch.uint8)


@LINUX
def test_file_systems_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    assert storage_module._file_system(Path("/proc")) == "proc"
    if Path("/dev/shm").is_mount():
        assert storage_module._file_system(Path("/dev/shm")) == "tmpfs"
    monkeypatch.setattr(storage_module, "MOUNTS", tmp_path / "none")
    assert storage_module._file_system(Path("/proc")) == ""


@LINUX
@pytest.mark.parametrize(
    "spec",
    [EncoderSpec(px=12, channels=4), SPEC, *(SPEC.model_copy(update={"trainable": t}) for t in (0, "all"))],
)
def test_encoders_prepare_the_same_into_either(spec: EncoderSpec, tmp_path: Path) -> None:
    encoder = build_encoder(spec, weights() if spec.network == "test_resnet" else None)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, PX, PX), dtype=np.uint8)
    mapped = encoder.prepare(images, UNLIMITED, on_disk(tmp_path))
    assert nameless_files(tmp_path)
    assert torch.equal(mapped, encoder.prepare(images))


@pytest.mark.medium
def test_training_on_a_mapped_trunk_is_training_on_one_in_memory(tmp_path: Path) -> None:
    pool, form = red_pool(px=PX), EpisodeSpec((2, 3), (1, 2), 2)
    recipe = Recipe(encoder=SPEC, training=TrainingSettings(max_steps=4, validate_every=2))
    states = []
    for storage in (MEMORY, on_disk(tmp_path)):
        learner = build_learner(recipe, weights())
        inputs = learner.encoder.prepare(pool.images, UNLIMITED, storage)
        source, validation = pool_source(pool, form, classes=8), held_out(pool, form, 8, episodes=5)
        source.inputs = inputs
        validation = type(validation)(inputs, validation.episodes)
        Training(learner, source, validation, recipe.training, UNLIMITED).run()
        states.append(learner.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_frozen_trunk_runs_where_the_parameters_are() -> None:
    encoder = build_encoder(SPEC, weights())
    assert isinstance(encoder, TailEncoder)
    images = np.zeros((2, 3, PX, PX), dtype=np.uint8)
    assert encoder.prepare(images).device.type == "cpu"
    encoder.to("meta")  # the one other device that is everywhere; it computes shapes only
    with pytest.raises(RuntimeError):
        encoder.prepare(images)
    assert encoder.frozen is not None
    assert encoder_module.get_device(encoder.frozen.backbone.model).type == "meta"


@pytest.mark.parametrize("maps", [False, True])
def test_a_frozen_backbone_runs_where_the_parameters_are(maps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder(SPEC.model_copy(update={"trainable": 0, "maps": maps}), weights())
    asked = []

    def elsewhere(spec: object, model: object, device: str) -> None:
        asked.append(device)
        raise InterruptedError

    monkeypatch.setattr(frozen_part, "Backbone", elsewhere)
    images = np.zeros((2, 3, PX, PX), dtype=np.uint8)
    encoder.prepare(images)
    encoder.to("meta")
    with pytest.raises(InterruptedError):
        encoder.prepare(images)
    assert asked == ["meta"]
