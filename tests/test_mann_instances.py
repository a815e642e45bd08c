"""The example of a memory that learns letters while it is asked."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from synthetic import example_module


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return example_module("mann_instances")


@pytest.mark.medium
def test_it_draws_and_prints(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "instances.png"
    monkeypatch.setattr(example, "TEST_EPISODES", 4)
    monkeypatch.setattr(example, "META_BATCH", 2)
    monkeypatch.setattr(sys, "argv", ["mann_instances.py", "--iterations", "1", "--output", str(picture)])
    example.main()
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("±") == 20


def test_episodes_show_every_class_as_often_in_random_order(example: ModuleType) -> None:
    grid = torch.arange(8 * 12, dtype=torch.uint8).view(8, 12, 1, 1, 1)
    images, labels = example.Classes(grid).episodes(30, torch.Generator().manual_seed(0))
    assert images.shape == (30, 50, 1, 1, 1)
    shown = images.flatten(1).long()
    for episode in range(30):
        assert torch.bincount(labels[episode]).tolist() == [10] * 5
        assert len(set(shown[episode].tolist())) == 50
        classes = {
            (int(label), int(image) // 12)
            for image, label in zip(shown[episode], labels[episode], strict=True)
        }
        assert len(classes) == 5
    assert len({tuple(row.tolist()) for row in labels}) == 30


def test_instance_numbers_count_within_a_class(example: ModuleType) -> None:
    labels = torch.tensor([[3, 1, 3, 3, 1, 0]])
    assert example.instance_numbers(labels).tolist() == [[0, 0, 1, 2, 1, 0]]


@pytest.mark.parametrize("memory", [True, False])
def test_an_answer_sees_no_label_from_its_step_on(example: ModuleType, memory: bool) -> None:
    torch.manual_seed(0)
    network = example.OneStepLate(memory).eval()
    images, labels = torch.randint(0, 255, (1, 6, 3, 16, 16), dtype=torch.uint8), torch.arange(6)[None] % 5
    with torch.no_grad():
        before = network(images, labels)
        for t in range(6):
            changed = labels.clone()
            changed[:, t] = (labels[:, t] + 1) % 5
            after = network(images, changed)
            torch.testing.assert_close(after[:, : t + 1], before[:, : t + 1])
            assert t == 5 or not torch.allclose(after[:, t + 1], before[:, t + 1])
