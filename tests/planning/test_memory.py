from __future__ import annotations

from autometa.heads.modes import SIX_MODES
from autometa.planning.memory import Task, fitting_bytes, learned_metrics, metric_bytes, view_bytes

WIDTH = 1712


def test_modes_that_fit_nothing_need_no_matrices() -> None:
    assert learned_metrics(["unfitted"]) == set()
    assert fitting_bytes(WIDTH, ["unfitted"], 4) == metric_bytes(WIDTH, ["unfitted"]) == 0


def test_more_modes_and_more_folds_take_more() -> None:
    assert (
        fitting_bytes(WIDTH, ["root"], 1)
        < fitting_bytes(WIDTH, SIX_MODES, 1)
        < fitting_bytes(WIDTH, SIX_MODES, 4)
    )
    assert Task(800, 128).answer_bytes(["root"]) < Task(800, 128).answer_bytes(SIX_MODES)
    assert metric_bytes(WIDTH, ["root"]) == 4 * WIDTH**2


def test_a_view_in_meta_test_has_a_network_an_engine_metrics_and_features() -> None:
    of_network = view_bytes(WIDTH, 10, 0, ["unfitted"], 0)
    assert of_network == 20
    assert view_bytes(WIDTH, 10, 7, ["root"], 3) == of_network + 7 + 4 * WIDTH**2 + 4 * WIDTH * 3
