"""The sinusoid example."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from synthetic import example_module


@pytest.fixture(scope="module")
def sinusoid() -> ModuleType:
    return example_module("sinusoid")


@pytest.mark.medium
def test_it_draws_and_prints(
    sinusoid: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "curves.png"
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["sinusoid.py", "--iterations", "2", "--output", str(picture)])
    sinusoid.main()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("±") == 8


def test_tasks_are_the_sinusoids_of_the_paper(sinusoid: ModuleType) -> None:
    tasks = sinusoid.Sinusoids.drawn(500, 10, torch.Generator().manual_seed(0))
    assert 0.1 <= tasks.amplitude.min() < 0.3 and 4.8 < tasks.amplitude.max() <= 5
    assert 0 <= tasks.phase.min() < 0.05 and 3.09 < tasks.phase.max() <= 3.1416
    assert -5 <= tasks.x.min() < -4.9 and 4.9 < tasks.x.max() <= 5
    torch.testing.assert_close(tasks.y, tasks.amplitude * torch.sin(tasks.x - tasks.phase))


@pytest.mark.medium
def test_maml_fits_new_sinusoids_that_a_pretrained_network_does_not(sinusoid: ModuleType) -> None:
    tasks, ((_, maml), (_, pretrained)) = sinusoid.compared(5000, seed=0, test_tasks=100)
    maml_mse, pretrained_mse = (float(sinusoid.errors(path[5], tasks).mean()) for path in (maml, pretrained))
    assert maml_mse < pretrained_mse / 2
    assert maml_mse < 0.8
    assert pretrained_mse > 1.2
