"""The controller with limits on what its learner takes: fewer views and modes, and a learner that was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from autometa_cases import POOL, accuracy, controller
from pydantic import ByteSize

from autometa.backbones import View
from autometa.model.load import load_learner
from autometa.model.portfolio import Portfolio
from autometa.planning.choice_log import Choices
from autometa.planning.serving_limits import ServingLimits
from autometa.search.purchases import Gains
from autometa.search.serving_check import MEASURED, keeps_limits, learner_bytes
from autometa.search.serving_gate import MODE_SETS

pytestmark = pytest.mark.usefixtures("eager_only")


@pytest.mark.slow
def test_a_run_with_limits_keeps_them_and_says_what_it_left_out(
    tmp_path: Path, tiny_backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gains, "expect", lambda *_: 0.01)  # although all answers are right at once
    lines: list[str] = []
    probe = controller(None, tiny_backbone)
    probe._gate.limits = ServingLimits(model_bytes=10**9)
    size = probe._gate.needs([View(tiny_backbone, 48)], MODE_SETS[2]).model_bytes
    run = controller(
        tmp_path,
        tiny_backbone,
        60,
        lines,
        infer_limit=600.0,
        max_model_size=ByteSize(size),
        resolutions=(48, 64),
    )
    run.bootstrap()
    run.run(POOL)
    saved = load_learner(tmp_path)
    assert isinstance(saved, Portfolio) and [mode.name for mode in saved.modes] in map(list, MODE_SETS[2:])
    assert learner_bytes(tmp_path) <= size and accuracy(saved) > 0.6
    assert keeps_limits(saved, ServingLimits(infer_s=600.0, model_bytes=size + 2000))
    assert 0 < saved.validation[MEASURED]["infer_s"] < saved.validation[MEASURED]["adapt_s"] * 100
    stages = {row["stage"]: row for row in json.loads((tmp_path / "stages.json").read_text())}
    assert "measured: " in stages["limits"]["note"]
    choices = Choices.model_validate_json((tmp_path / "choices.json").read_text())
    told = {member.name for member in choices.members}
    assert told == set(map(str, saved.views)) | {mode.name for mode in saved.modes}
    assert any("with all of them over --max-model-size" in line for line in lines), lines
