"""Runs that are killed, and what a later run makes of what they have left."""

from __future__ import annotations

from pathlib import Path

import pytest
from autometa_cases import POOL, accuracy, controller, journal
from synthetic import colour_pool

from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.search import purchases

pytestmark = pytest.mark.usefixtures("eager_only")


@pytest.mark.medium
def test_a_later_run_knows_what_an_earlier_one_has_bought(tmp_path: Path, tiny_backbone: str) -> None:
    controller(tmp_path, tiny_backbone).run(POOL)
    measured = [row for row in journal(tmp_path) if row.get("gain") is not None]
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"purchase": "tin')  # half a line, as a kill leaves it
    lines: list[str] = []
    again = controller(tmp_path, tiny_backbone, lines=lines)
    served = again.bootstrap()
    assert isinstance(served, Portfolio) and served.validation["stage"] == "final"
    assert any("serves at once" in line for line in lines)
    assert any("damaged end is cut off" in line for line in lines)
    learner = again.run(POOL)
    assert measured and f"resumed: {len(measured)} purchases of earlier runs are known" in lines
    assert any("the learner of the earlier run stays" in line for line in lines)
    assert learner.validation["stage"] == "final" and accuracy(load_learner(tmp_path)) > 0.8


class Killed(list[str]):
    """Lines of a report, the last of which kills the run."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def append(self, line: str) -> None:
        super().append(line)
        if len(self) == self.most:
            raise KeyboardInterrupt


@pytest.mark.medium
def test_a_run_killed_at_any_line_leaves_a_learner(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purchases, "ORIENTATION_STEPS", (1, 2))
    pool, saved = colour_pool(classes=8, per_class=6, datasets=1), None
    for number in range(1, 100):
        folder = tmp_path / str(number)
        folder.mkdir()
        killed = Killed(number)
        try:
            controller(folder, tiny_backbone, lines=killed, max_trials=1, resolutions=(48,)).run(pool)
        except KeyboardInterrupt:
            saved = load_learner(folder)
            assert accuracy(saved, pool, shots=2) > 1 / 3
            on_disk = [line for line in killed if line.startswith("learner on disk")]
            assert saved.validation["stage"] in on_disk[-1]  # the line comes after the file
        else:
            break
    assert saved is not None and 8 < number < 99
    assert saved.validation["stage"] == "final"
