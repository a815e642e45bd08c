"""Processes that have ended leave no entry behind in the table of processes, however many there were."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from sandboxes import skip_without
from synthetic import MakeBundle

from ingestion import Event, IngestionSettings, run


@pytest.mark.medium
def test_what_is_left_of_a_child_that_died_is_reaped_before_the_next_ones_end(
    dataset: Path, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    skip_without("bubblewrap")  # what it starts within is adopted
    known = {process.pid for process in psutil.Process().children()}
    zombies: list[int] = []

    def look(event: Event) -> None:
        if event.kind == "progress":
            found = [each for each in psutil.Process().children() if each.pid not in known]
            zombies.append(sum(each.status() == psutil.STATUS_ZOMBIE for each in found))

    settings = IngestionSettings(
        input_data_dir=dataset,
        submission=make_bundle(predict="os._exit(3)"),
        output_dir=tmp_path / "out",
        image_size=16,
        test_tasks_per_dataset=3,
        query_images_per_class=4,
        sandbox="bubblewrap",
    )
    result = run(settings, look)
    assert len(result.failures) == 3 and zombies
    assert max(zombies) <= 1  # the last one may be on its way out
