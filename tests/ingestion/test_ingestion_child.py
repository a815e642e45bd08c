"""What runs in the submission's process: generators, logger, channel."""

from __future__ import annotations

import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from synthetic import write_meta_album

from ingestion.albums import read_meta_album
from ingestion.channel import Channel, map_array
from ingestion.errors import SubmissionError
from ingestion.generators import BatchGenerator, TaskGenerator, TrainingSet
from ingestion.images import decode_dataset
from ingestion.logger import Logger
from ingestion.shared_images import SharedImages
from ingestion.tasks import TaskConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture
def training_sets(tmp_path: Path) -> list[TrainingSet]:
    sets = []
    for name, classes in (("A", 4), ("B", 3)):
        decoded = decode_dataset(
            read_meta_album(write_meta_album(tmp_path / name, [6] * classes)), 16, tmp_path
        )
        sets.append(TrainingSet(name, decoded.images, decoded.dataset.labels))
    return sets


def test_tasks_have_the_form_of_the_format(training_sets: list[TrainingSet]) -> None:
    config = TaskConfig(N=3, k=2, query_images_per_class=3)
    task, again = (next(TaskGenerator(training_sets, config, 5)(1)) for _ in range(2))
    images, labels, original = task.support_set
    assert images.shape == (6, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert labels.dtype == original.dtype == torch.int64
    assert torch.equal(torch.from_numpy(task.original_class_idx)[labels], original)
    assert task.query_set[0].shape == (9, 3, 16, 16)
    assert task.dataset in "AB"
    assert torch.equal(images, again.support_set[0])


def test_batches_cover_an_epoch_and_go_on(training_sets: list[TrainingSet]) -> None:
    generator = BatchGenerator(training_sets, 16, seed=1)
    epoch = list(generator(3))
    assert [len(labels) for _, labels in epoch] == [16, 16, 10]
    labels = torch.cat([labels for _, labels in epoch])
    assert torch.bincount(labels).tolist() == [6] * 7
    loader: Any = torch.utils.data.DataLoader(
        cast(Any, range(42)), 16, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    expected = [6 * [0] + 6 * [1] + 6 * [2] + 6 * [3] + 6 * [4] + 6 * [5] + 6 * [6]][0]
    assert labels.tolist() == [expected[i] for batch in loader for i in batch.tolist()]
    images, again = next(generator(1))
    assert images.shape == (16, 3, 16, 16)
    assert not torch.equal(again, epoch[0][1])


def test_logger_writes_the_files_of_the_format(tmp_path: Path, training_sets: list[TrainingSet]) -> None:
    task = next(TaskGenerator(training_sets, TaskConfig(N=3, k=2, query_images_per_class=3), 5)(1))
    logger = Logger(tmp_path / "logs")
    perfect = np.eye(3)[task.query_set[1].numpy()]
    logger.log(task, perfect, 0.5)
    logger.log(task, torch.from_numpy(perfect), 0.25, meta_train=False)
    logger.log(task, task.query_set[1].numpy())
    logger.log(task, perfect, meta_train=False)
    train = tmp_path / "logs" / "meta_train"
    header, first, second = (train / "performance.csv").read_text().splitlines()
    assert header == "Normalized Accuracy,Accuracy,Macro F1 Score,Macro Precision,Macro Recall,Loss"
    assert first == "1.0,1.0,1.0,1.0,1.0,0.5"
    assert second.endswith(",")
    assert (train / "tasks.csv").read_text().splitlines()[0] == "Dataset,N,k"
    assert np.loadtxt(train / "predictions" / "iteration_1.out").shape == (9, 3)
    assert np.loadtxt(train / "ground_truth" / "iteration_2.out").shape == (9,)
    steps = sorted(p.name for p in (tmp_path / "logs" / "meta_validation").iterdir())
    assert steps == ["step_1", "step_2"]


def test_logger_takes_batches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = Logger(tmp_path)
    logger.log([torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])], np.array([0, 1, 1, 0]), 1.0)
    assert "Accuracy: 0.750" in capsys.readouterr().out
    assert not (tmp_path / "meta_train" / "tasks.csv").exists()


def test_messages_travel_with_arrays() -> None:
    ours, theirs = (Channel(end.detach()) for end in socket.socketpair())
    ours.send("predictions", np.arange(6, dtype=np.float32).reshape(2, 3), note="x")
    message = theirs.receive()
    assert (message.kind, message.fields) == ("predictions", {"note": "x"})
    assert message.array is not None
    assert message.array.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(TypeError, match="numbers"):
        ours.send("x", np.array([object()]))
    ours.close()
    with pytest.raises(EOFError):
        theirs.receive()
    theirs.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]\n",
        b"[" * 100_000,
        b'{"kind": 1}\n',
        b'{"kind": "x", "fields": {}, "dtype": "O", "shape": [1]}\n12345678',
        b'{"kind": "x", "fields": {}, "dtype": "<f8", "shape": [9]}\n1',
        b'{"kind": "x", "fields": {}, "dtype": "<f8", "shape": [1e400]}\n',
        b'{"kind": "x", "fields": {}, "dtype": "<f8", "shape": [-1]}\n',
    ],
)
def test_foreign_bytes_are_no_message(raw: bytes) -> None:
    left, right = socket.socketpair()
    left.sendall(len(raw).to_bytes(8, "big") + raw)
    channel = Channel(right.detach())
    with pytest.raises(SubmissionError, match="protocol"):
        channel.receive()
    left.close()
    channel.close()


@pytest.mark.medium
def test_a_message_that_nobody_reads_does_not_hold_up_the_sender() -> None:
    ours, theirs = (Channel(end.detach()) for end in socket.socketpair())
    with pytest.raises(TimeoutError):
        ours.send("task", np.zeros(10**7), limit_s=0.05)
    ours.close()
    theirs.close()


def test_json_that_would_fill_the_memory_is_no_message() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = Channel(ours.detach(), max_head_bytes=100), Channel(theirs.detach())
    writer.send("predictions", np.zeros(1000))
    assert reader.receive().array is not None
    writer.send("predictions", note="x" * 100)
    with pytest.raises(SubmissionError, match="bytes of JSON"):
        reader.receive()
    reader.close()
    writer.close()


def start_child(fd: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "ingestion.child", str(fd)], cwd=ROOT, pass_fds=(fd,))


@pytest.mark.medium
def test_a_child_whose_parent_was_killed_before_it_had_started_does_nothing(tmp_path: Path) -> None:
    """The kernel does not tell it, and what it is to do was sent already."""
    (tmp_path / "model.py").write_text("from pathlib import Path\nPath(__file__).with_name('sign').touch()\n")
    signs = []
    for killed in (False, True):
        ours, theirs = socket.socketpair()
        parent = Channel(ours.detach())
        parent.send("meta-test", bundle=str(tmp_path))
        if killed:
            parent.close()
        child = start_child(theirs.fileno())
        theirs.close()
        if not killed:
            assert parent.receive().fields["stage"] == "import of model.py"  # it has no learners
            parent.close()
        assert child.wait(60) == 0
        signs.append((tmp_path / "sign").exists())
        (tmp_path / "sign").unlink(missing_ok=True)
    assert signs == [True, False]


def test_shared_images_can_only_be_read_by_the_child() -> None:
    """Nobody can shorten them, which would end ingestion by a signal, nor write to them through a new descriptor."""
    shared = SharedImages(4 * 12)
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)
    for again in (0, 1):
        assert shared.put(images, np.array([1 - again])) == [1, 3, 2, 2]
        view = map_array(shared.fd, (1, 3, 2, 2))
        assert (view == images[1 - again]).all()
        assert not view.flags.writeable
        for attack in (shorten_reopened, write_to_reopened, map_reopened):
            with pytest.raises(OSError):
                attack(shared.fd)
        with pytest.raises(OSError):
            os.ftruncate(shared.fd, 0)
        assert (view == images[1 - again]).all()
    shared.clear()
    assert not map_array(shared.fd, (4, 3, 2, 2)).any()
    shared.close()


def shorten_reopened(fd: int) -> None:
    os.truncate(f"/proc/self/fd/{fd}", 1)


def write_to_reopened(fd: int) -> None:
    with Path(f"/proc/self/fd/{fd}").open("r+b", buffering=0) as file:
        file.write(b"other")


def map_reopened(fd: int) -> None:
    with Path(f"/proc/self/fd/{fd}").open("r+b", buffering=0) as file:
        mmap.mmap(file.fileno(), 4, access=mmap.ACCESS_WRITE)[:4] = b"evil"
