"""Where the runs of a judging go: this machine, or those of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from autometa.core.budget import MemoryBudget
from autometa.core.fingerprints import fingerprint
from autometa.judging.executor import RunExecutor, in_threads
from autometa.judging.options import JudgeOptions
from autometa.judging.runs import RunPlayer

USUAL_QUERIES = 20
Show = Callable[[str], None]


class Place(Protocol):
    """Machines that do runs. `memory_bytes` is the memory budget of each run."""

    memory_bytes: int

    def executor(self, folder: Path, dataset: Path, show: Show) -> RunExecutor:
        """What does the runs of a judging in `folder`. InputError for a dataset that cannot be used."""


class Here:
    """This machine. Runs that go on at the same time share what memory is free."""

    def __init__(self, options: JudgeOptions, earlier_bytes: int | None) -> None:
        self.options = options
        whole = MemoryBudget.of_machine().total_bytes
        self.memory_bytes = options.memory_budget or earlier_bytes or whole // options.jobs

    def executor(self, folder: Path, dataset: Path, show: Show) -> RunExecutor:
        """Programs of this machine; first the images are decoded, so that no run is slower than the others for it."""
        from autometa.judging.images import fill_cache  # noqa: PLC0415 - slow to import

        show("decodes the images, once for all runs")
        fill_cache(
            dataset,
            self.options.image_size,
            self.options.image_shape,
            task_images=most_task_images(self.options),
            memory_bytes=self.memory_bytes,
        )
        player = RunPlayer(folder, dataset, self.options, self.memory_bytes)
        return in_threads(player.play, self.options.jobs, player.programs.stop)


class OnCluster:
    """The machines of the Ray cluster at `options.ray`. ConfigError where there is none, or no room."""

    def __init__(self, options: JudgeOptions, earlier_bytes: int | None) -> None:
        from autometa.executors.ray_cluster import connect  # noqa: PLC0415 - slow to import
        from autometa.judging.cluster import needs_of_runs  # noqa: PLC0415

        self.options, self._ray = options, connect(str(options.ray))
        asked = options.memory_budget or earlier_bytes
        self._needs = needs_of_runs(self._ray, options.jobs, asked, options.label)
        self.memory_bytes = self._needs.memory_bytes

    def executor(self, folder: Path, dataset: Path, show: Show) -> RunExecutor:
        """Runs on these machines, which decode the images before their first one."""
        from autometa.judging.cluster import Cluster, new_token  # noqa: PLC0415 - slow to import
        from autometa.judging.guest import Job  # noqa: PLC0415

        job = Job(
            new_token(),
            dataset.resolve(),
            fingerprint(dataset),
            self.options,
            self.memory_bytes,
            self._needs.cpus,
            most_task_images(self.options),
        )
        made = Cluster(self._ray, job, self._needs, folder, show)
        gpus = f", {self._needs.gpus:g} GPUs" if self._needs.gpus else ""
        show(
            f"{made.capacity()} runs at a time on the cluster, each with {self._needs.cpus} processors, "
            f"{self.memory_bytes / 1e9:.1f} GB{gpus}"
        )
        return made


def choose_place(options: JudgeOptions, earlier_bytes: int | None) -> Place:
    """Where these options want the runs. `earlier_bytes`: memory of the runs of an earlier judging that goes on."""
    return (OnCluster if options.ray else Here)(options, earlier_bytes)


def most_task_images(options: JudgeOptions) -> int:
    """Images of the largest task, support or queries."""
    return options.ways[1] * max(options.shots[1], options.query_per_class or USUAL_QUERIES)
