"""Machines of a cluster that take part in a fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from autometa.backbones.spread_features import SpreadFeatures
from autometa.classifier.notes import Report
from autometa.core.machine import Machine
from autometa.search.copy_orders import Trainers


@dataclass(frozen=True)
class Machines:
    """Who embeds images and who trains copies of networks beside this process; None: nobody."""

    spread: SpreadFeatures | None = None
    trainers: Trainers | None = None


@contextmanager
def spread_over(address: str | None, report: Report) -> Iterator[Machines]:
    """The Ray cluster at this address, until the end of the block; nobody for no address. ConfigError where no
    cluster can be used there."""
    if address is None:
        yield Machines()
        return
    from autometa.backbones.embedders import join_cluster  # noqa: PLC0415 - only where it is asked for
    from autometa.search.cluster_trainers import TrainOnCluster  # noqa: PLC0415

    workers = join_cluster(address, Machine.detect().device, report)
    try:
        report(
            f"{workers.capacity()} processes on the cluster embed images, and all but one train copies of networks, "
            f"each with {workers.needs.cpus} processors"
        )
        yield Machines(SpreadFeatures(workers, report), TrainOnCluster(workers))
    finally:
        workers.close()
