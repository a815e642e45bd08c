"""The submission's process as its parent sees it: start, talk, end."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from ingestion.access import Access
from ingestion.channel import Channel, ChannelClosed, Message
from ingestion.disk import DiskMeter, clear
from ingestion.errors import SubmissionError
from ingestion.gpu import ask_in_process, describe_gpu, has_cuda_device
from ingestion.gpu_memory import GpuMeter
from ingestion.memory import BLOCK_BYTES, Inode, MemoryMeter, inode_of
from ingestion.process_tree import kill_group
from ingestion.sandbox import confine, start_folder
from ingestion.shown import plain
from ingestion.submission_log import SubmissionLog
from ingestion.watch import Watchdog, Watched, end_strays, kill_processes, process_tree

EXIT_GRACE_S = 0.5
LONGEST_TRACEBACK = 8000
"""Characters, half of them from its start and half from its end."""
READ_LIMIT_S = 120.0
MAX_HEAD_BYTES = 4 * 2**20
"""The most JSON that a child may send: a long traceback."""
MARK_VARIABLE = "METADL_PROCESS"
"""Identifies all processes of one child, even after they leave its process tree."""


@dataclass(frozen=True)
class LaunchPlan:
    """How every process of a submission is started and watched; `log` collects what they print. `model_dir`: the
    folder that `save` and `load` get. `given`: files of images that they got, with their size on disk."""

    sandbox: str
    access: Access
    model_dir: Path
    environment: dict[str, str]
    memory_bytes: int | None
    memory: MemoryMeter | None
    disk: DiskMeter
    given: dict[Inode, int]
    log: SubmissionLog
    gpu: GpuMeter | None = None
    peaks: dict[str, int] = field(default_factory=dict)
    """The most memory in bytes that the processes of each phase were seen to use."""

    def describe_gpu(self) -> str | None:
        """A line on whether the submission sees the GPU of this machine; None where it has none."""
        ask = partial(ask_in_process, environment=self.environment)
        inside = partial(confine, self.sandbox, access=self.access)
        return describe_gpu(self.sandbox, ask, inside, has_device=has_cuda_device())

    def note_given(self, fds: tuple[int, ...], files: tuple[Path, ...]) -> None:
        """Remember what the child gets: it counts neither as its memory nor as its disk."""
        for status in (*map(os.fstat, fds), *(file.stat() for file in files)):
            self.given[inode_of(status)] = status.st_blocks * BLOCK_BYTES


class SubmissionProcess:
    """One child, which gets the open files `fds` and, under bubblewrap, the files `mounted`. Use as a context
    manager: leaving it ends the child and all processes that it started."""

    def __init__(
        self,
        plan: LaunchPlan,
        *,
        fds: tuple[int, ...] = (),
        mounted: tuple[Path, ...] = (),
        beside: tuple[int, ...] = (),
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._plan, self._phase = plan, ""
        plan.note_given(fds, mounted)
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "ingestion.child", str(theirs.fileno())]
        self._process = subprocess.Popen(
            confine(plan.sandbox, command, plan.access, mounted),
            cwd=start_folder(plan.sandbox, plan.access),
            env=plan.environment | {MARK_VARIABLE: self._mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(theirs.fileno(), *fds),
            start_new_session=True,
        )
        theirs.close()
        self._channel = Channel(ours.detach(), max_head_bytes=MAX_HEAD_BYTES)
        self._printer = threading.Thread(target=plan.log.follow, args=(self._process.stdout,), daemon=True)
        self._printer.start()
        self.watchdog = Watchdog(
            Watched(self.pid, plan.memory_bytes, plan.memory, plan.disk, self._is_stray, beside, plan.gpu)
        )

    @property
    def pid(self) -> int:
        """Process id of the child, or of its sandbox."""
        return self._process.pid

    def __enter__(self) -> SubmissionProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def send(self, kind: str, deadline: float | None, **fields: Any) -> None:
        """Send one message by `deadline` (monotonic seconds). SubmissionError if the child has ended or does not
        read it."""
        self._phase = self._phase or kind
        limit_s = (
            READ_LIMIT_S if deadline is None else min(READ_LIMIT_S, max(deadline - time.monotonic(), 0.1))
        )
        try:
            self._channel.send(kind, limit_s=limit_s, **fields)
        except TimeoutError as error:
            raise SubmissionError(f"did not read a message within {limit_s:.0f} s", fatal=True) from error
        except OSError as error:
            raise self._gone() from error

    def await_reply(
        self, expected: str, deadline: float | None, what: str, stop: Callable[[], bool] = lambda: False
    ) -> Message:
        """The child's next message, of kind `expected`, by `deadline` (monotonic seconds), before `stop()` is true.

        Raises SubmissionError if the submission raised (with its traceback), died, ran out of time or memory, or sent
        something else; `fatal` says whether the child cannot go on.
        """
        self.watchdog.allow_until(deadline, what)
        try:
            message = self._channel.receive(lambda: stop() or self._is_over())
        except ChannelClosed as error:
            raise (SubmissionError("interrupted", fatal=True) if stop() else self._gone()) from error
        finally:
            self.watchdog.allow_until(None, "")
        if message.kind == "error":
            raise SubmissionError(
                f"{message.fields.get('stage', '?')}: {message.fields.get('summary', '?')}"[:2000],
                plain(_shorten(str(message.fields.get("traceback", "")))),
                fatal=bool(message.fields.get("fatal", True)),
            )
        if message.kind != expected:
            raise SubmissionError(f"answered `{message.kind[:100]}` instead of `{expected}`", fatal=True)
        return message

    def check(self) -> None:
        """SubmissionError where no answer can come any more."""
        if self._is_over():
            raise self._gone()

    def _is_over(self) -> bool:
        """Whether no answer can come any more, even if another process that the child started still has the channel
        open."""
        return bool(self.watchdog.verdict) or self._process.poll() is not None

    def _gone(self) -> SubmissionError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_GRACE_S)
        if self.watchdog.verdict:
            return SubmissionError(self.watchdog.verdict, fatal=True)
        status = self._process.poll()
        if status is None:
            return SubmissionError("closed its channel to ingestion", fatal=True)
        how = f"was killed by signal {-status}" if status < 0 else f"exited with status {status}"
        return SubmissionError(f"the submission's process {how} before it had answered", fatal=True)

    def end(self) -> None:
        """Close the channel, so that the child can exit, and kill what is left."""
        self._channel.close()
        kill_group(self._process.pid)
        kill_processes(process_tree(self._process.pid))
        self._process.wait()
        self.watchdog.stop()
        peak = max(self.watchdog.peak_bytes, self._plan.peaks.get(self._phase, 0))
        self._plan.peaks.update({self._phase: peak} if peak and self._phase else {})
        end_strays(self._is_stray)
        if self.watchdog.disk_is_full:
            clear(self._plan.access.scratch)  # the next task finds room; model and logs are kept
        self._printer.join(EXIT_GRACE_S)

    def _is_stray(self, process: psutil.Process) -> bool:
        return bool(process.environ().get(MARK_VARIABLE) == self._mark)


def earlier(*moments: float | None) -> float | None:
    """The earliest of some deadlines; None means never."""
    given = [m for m in moments if m is not None]
    return min(given) if given else None


def after(seconds: float | None) -> float | None:
    """The deadline in `seconds` from now; None means never."""
    return None if seconds is None else time.monotonic() + seconds


def _shorten(traceback: str) -> str:
    half = LONGEST_TRACEBACK // 2
    return traceback if len(traceback) <= 2 * half else f"{traceback[:half]}\n…\n{traceback[-half:]}"
