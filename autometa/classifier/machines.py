"""Machines of a cluster that take part in a fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from autometa.backbones.spread_features import SpreadFeatures
from autometa.classifier.reading import Report
from autometa.core.machine import Machine


@contextmanager
def spread_over(address: str | None, report: Report) -> Iterator[SpreadFeatures | None]:
    """Who embeds images on the Ray cluster at this address, until the end of the block; None for no address.
    ConfigError where no cluster can be used there."""
    if address is None:
        yield None
        return
    from autometa.backbones.embedders import join_cluster  # noqa: PLC0415 - only where it is asked for

    workers = join_cluster(address, Machine.detect().device, report)
    try:
        report(
            f"{workers.capacity()} processes on the cluster embed images, each with {workers.needs.cpus} processors"
        )
        yield SpreadFeatures(workers, report)
    finally:
        workers.close()
