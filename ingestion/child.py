"""The submission's process: imports `model.py` of the bundle and does what the parent asks.

It gets file descriptors, but no path of the data and no query label. Every exception of the submission is sent back
with its traceback.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ingestion.channel import Channel, ChannelClosed, Message, map_array
from ingestion.process_tree import die_with_parent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ingestion.generators import TrainingSet


MAX_FILE_BYTES = 16 * 2**30
"""Largest file that a submission may write."""


class Stage:
    """The stage that the child is in, for the report of a failure."""

    name = "start"


def main(fd: int) -> None:
    """Serve one parent over the channel `fd` until the parent closes it."""
    began = time.monotonic()
    die_with_parent()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = MAX_FILE_BYTES if hard == resource.RLIM_INFINITY else min(MAX_FILE_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    channel = Channel(fd)
    if channel.is_closed():  # the parent was killed before this process asked to die with it
        return
    setup = channel.receive()
    try:
        with _collecting_nothing():
            model = _import_model(Path(setup.fields["bundle"]))
            if setup.kind != "meta-train":
                importlib.import_module("torch")  # each task comes as its tensors
        if setup.kind == "meta-train":
            _meta_train(channel, setup, model)
        else:
            channel.send("ready", start_s=time.monotonic() - began)
            _meta_test(channel, setup, model)
    except ChannelClosed:
        return
    except BaseException as error:  # noqa: BLE001 - the boundary to code of others: everything is reported
        _report(channel, error, fatal=True)


def _report(channel: Channel, error: BaseException, *, fatal: bool) -> None:
    summary = traceback.format_exception_only(error)[-1].strip()
    own = error.__traceback__
    while own is not None and own.tb_frame.f_code.co_filename == __file__:
        own = own.tb_next  # the submission's frames only
    text = "".join(traceback.format_exception(type(error), error, own or error.__traceback__))
    if getattr(error, "plain", False):  # the message of this error is enough, without a traceback
        text = ""
    channel.send("error", stage=Stage.name, summary=summary[:2000], traceback=text[-100_000:], fatal=fatal)


@contextlib.contextmanager
def _collecting_nothing() -> Iterator[None]:
    """Import in this block: what modules make lives as long as the process, and looking for garbage among it takes a
    good part of the time of importing torch."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _import_model(bundle: Path) -> ModuleType:
    Stage.name = "import of model.py"
    sys.path.insert(0, str(bundle))
    if not (bundle / "api.py").exists():
        sys.modules["api"] = importlib.import_module("ingestion.api")
    model = importlib.import_module("model")
    for name in ("MyMetaLearner", "MyLearner"):
        if not hasattr(model, name):
            raise AttributeError(f"model.py defines no class {name}")
    return model


def _training_sets(described: list[dict[str, Any]]) -> list[TrainingSet]:
    import numpy as np  # noqa: PLC0415

    from ingestion.generators import TrainingSet  # noqa: PLC0415

    return [
        TrainingSet(
            name=d["name"],
            images=_images(d),
            labels=np.array(d["labels"], dtype=np.int64),
        )
        for d in described
    ]


def _images(described: dict[str, Any]) -> NDArray[np.uint8]:
    """The images of a part, mapped from an open file or, under bubblewrap, from one that is mounted read-only."""
    fd = described["fd"] if "fd" in described else os.open(described["path"], os.O_RDONLY)
    images = map_array(fd, tuple(described["shape"]), offset=described["offset"])
    os.close(fd)
    return images


def _meta_train(channel: Channel, setup: Message, model: ModuleType) -> None:
    from ingestion.bundle import SubmissionConfig  # noqa: PLC0415
    from ingestion.generators import BatchGenerator, TaskGenerator  # noqa: PLC0415
    from ingestion.logger import Logger  # noqa: PLC0415

    fields = setup.fields
    config = SubmissionConfig.model_validate(fields["config"])
    train, valid = _training_sets(fields["train"]), _training_sets(fields["valid"])
    total_classes = sum(t.classes for t in train)
    train_generator: TaskGenerator | BatchGenerator
    if config.data_format == "task":
        train_generator = TaskGenerator(train, config.train_config, fields["seed"])
        train_classes = config.train_config.N
    else:
        train_generator = BatchGenerator(train, config.batch_size, fields["seed"])
        train_classes = total_classes
    valid_generator = TaskGenerator(valid, config.valid_config, fields["seed"]) if valid else None
    logger = Logger(Path(fields["log_dir"]), verbose=fields["verbose"])
    Stage.name = "MyMetaLearner()"
    meta_learner = model.MyMetaLearner(train_classes, total_classes, logger)
    Stage.name = "meta_fit"
    learner = meta_learner.meta_fit(train_generator, valid_generator)
    if learner is None:
        raise TypeError("meta_fit returned None; it must return the learner")
    Stage.name = "save"
    learner.save(fields["model_dir"])
    channel.send("saved")


def _meta_test(channel: Channel, setup: Message, model: ModuleType) -> None:
    while True:
        task = channel.receive()
        try:
            _one_task(channel, setup.fields, task, model)
        except ChannelClosed:
            raise
        except Exception as error:  # noqa: BLE001 - a failed task is a result; the next one may succeed
            _report(channel, error, fatal=False)


def _one_task(channel: Channel, setup: dict[str, Any], task: Message, model: ModuleType) -> None:
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from ingestion.contract import TasksLeft  # noqa: PLC0415
    from ingestion.small_memory import task_images  # noqa: PLC0415

    fields = task.fields
    os.environ.update(TasksLeft(**fields["left"]).variables())
    support = task_images(map_array(setup["buffer"], tuple(fields["shape"])))
    labels = torch.tensor(fields["labels"], dtype=torch.int64)
    original = torch.tensor(fields["original_labels"], dtype=torch.int64)
    Stage.name = "MyLearner()"
    learner = model.MyLearner()
    Stage.name = "load"
    learner.load(setup["model_dir"])
    channel.send("loaded")
    Stage.name = "fit"
    predictor = learner.fit((support, labels, original, fields["ways"], fields["shots"]))
    del support  # nothing of it is needed here any more
    channel.send("fitted")
    query = channel.receive()
    images = task_images(map_array(setup["buffer"], tuple(query.fields["shape"])))
    Stage.name = "predict"
    predictions = np.asarray(predictor.predict(images))
    channel.send("predictions", predictions)


if __name__ == "__main__":
    main(int(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # threads of the submission must not keep the process alive
