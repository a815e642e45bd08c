"""A budget of GPU memory, with a stand-in for NVML."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from ingestion_runs import Runner
from synthetic import MakeBundle

from ingestion import InputError, gpu_memory
from ingestion.gpu_memory import ALLOCATOR_VARIABLE, CONTEXT_BYTES, ORDER_VARIABLE, Card, GpuMeter

GB = 10**9


@pytest.fixture(autouse=True)
def every_card_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def library(
    total: int = 80 * GB, used: int = 1 * GB, cards: int = 1, state: dict[str, int] | None = None
) -> Any:
    """What NVML offers of cards of this size; `state["used"]` replaces what is in use, `state["used1"]` on the
    second card alone."""

    def memory(card: int) -> Any:
        if (state or {}).get("error", 0):
            raise pynvml.NVMLError(15)
        now = (state or {}).get("used", used)
        return SimpleNamespace(total=total, used=(state or {}).get("used1", now) if card == 1 else now)

    return SimpleNamespace(
        NVMLError=pynvml.NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: cards,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetHandleByUUID=lambda name: 0,
        nvmlDeviceGetMemoryInfo=memory,
    )


def test_what_is_asked_of_nvml_is_there() -> None:
    assert all(hasattr(pynvml, name) for name in vars(library()))


def test_cards_tell_their_memory() -> None:
    card = Card.find(library(cards=2))
    assert card is not None and card.memory() == [(80 * GB, 1 * GB)] * 2
    assert Card.find(library(cards=0)) is None

    def missing() -> None:
        raise pynvml.NVMLError(12)

    without = library()
    without.nvmlInit = missing
    assert Card.find(without) is None


@pytest.mark.parametrize(("visible", "cards"), [("1", 1), ("0,GPU-5a", 2), ("-1", 0), ("", 0)])
def test_only_cards_that_programs_may_use_count(
    visible: str, cards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    card = Card.find(library(cards=3))
    assert len(card.memory() if card else ()) == cards


def test_a_card_that_does_not_tell_its_memory_is_not_watched() -> None:
    assert GpuMeter.of(Card.find(library(state={"error": 3})), 2 * GB) is None


def test_each_process_has_a_context() -> None:
    card = Card.find(library())
    one, two = GpuMeter.of(card, 2 * GB), GpuMeter.of(card, 2 * GB, processes=2)
    assert one is not None and two is not None
    assert one.allocator_bytes - two.allocator_bytes == CONTEXT_BYTES


def test_the_budget_is_most_of_what_is_free_unless_one_is_given() -> None:
    card = Card.find(library())
    assert GpuMeter.of(None, 2 * GB) is None
    free, given = GpuMeter.of(card, None), GpuMeter.of(card, 2 * GB)
    assert free is not None and free.limit_bytes == pytest.approx(0.9 * 79 * GB)
    assert given is not None and given.limit_bytes == 2 * GB


def test_what_was_in_use_before_does_not_count() -> None:
    state = {"used": 10 * GB}
    meter = GpuMeter.of(Card.find(library(state=state)), 2 * GB)
    assert meter is not None and meter.excess() == ""
    state["used"] = 12 * GB
    assert meter.excess() == ""
    state["used"] = 13 * GB
    assert meter.excess() == "used 3.00 GB of GPU memory, the budget is 2.00 GB"
    state["error"] = 15
    assert meter.excess() == ""
    assert meter.peak_bytes == 3 * GB


def test_each_card_has_the_budget() -> None:
    state = {"used": 1 * GB, "used1": 70 * GB}
    card = Card.find(library(cards=2, state=state))
    free, meter = GpuMeter.of(card, None), GpuMeter.of(card, 71 * GB)
    assert free is not None and free.limit_bytes == pytest.approx(0.9 * 79 * GB), "that of the first card"
    assert meter is not None
    state |= {"used": 40 * GB, "used1": 75 * GB}
    assert meter.excess() == "" and meter.peak_bytes == 39 * GB
    state["used"] = 74 * GB
    assert meter.excess().startswith("used 73.00 GB")
    assert free.excess() == "" and free.peak_bytes == 73 * GB, (
        "others may use a card that nobody set a limit for"
    )


def test_a_budget_that_leaves_nothing_to_compute_with_is_refused() -> None:
    card = Card.find(library())
    assert GpuMeter.of(card, GB) is not None
    with pytest.raises(
        InputError, match=r"--gpu-memory-budget 1.00GB: 2 processes need 1.05 GB.*give 1.15GB"
    ):
        GpuMeter.of(card, GB, processes=2)


@pytest.mark.parametrize(("version", "told"), [("2.10.0", False), ("2.14.1+cu130", True)])
def test_the_allocator_is_told_where_it_can_read_it(
    version: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_memory.importlib.metadata, "version", lambda _: version)
    meter = GpuMeter.of(Card.find(library()), 2 * GB)
    assert meter is not None
    monkeypatch.delenv(ORDER_VARIABLE, raising=False)
    share = f"per_process_memory_fraction:{(2 * GB - CONTEXT_BYTES) / (80 * GB):.6f}"
    order = {ORDER_VARIABLE: "PCI_BUS_ID"}  # cards are numbered as NVML does
    assert meter.variables() == order | ({ALLOCATOR_VARIABLE: share} if told else {})
    monkeypatch.setenv(ORDER_VARIABLE, "FASTEST_FIRST")
    assert ORDER_VARIABLE not in meter.variables()


@pytest.mark.medium
def test_a_refused_budget_costs_no_earlier_output(
    runner: Runner, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle()
    runner(bundle, test_tasks_per_dataset=1)
    before = sorted(runner.output.rglob("*"))
    card = Card.find(library())
    monkeypatch.setattr("ingestion.program.has_cuda_device", lambda: True)
    monkeypatch.setattr("ingestion.program.Card", SimpleNamespace(find=lambda: card))
    with pytest.raises(InputError, match="--gpu-memory-budget"):
        runner(bundle, gpu_memory_budget_bytes=GB * 55 // 100, overwrite=True)
    assert sorted(runner.output.rglob("*")) == before


@pytest.mark.medium
def test_a_submission_that_uses_too_much_is_ended(
    runner: Runner, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:

    class Used(dict[str, int]):
        def get(self, name: str, default: Any = None) -> Any:
            return default if name == "error" else (9 * GB if list(runner.output.rglob("much")) else 1 * GB)

    card = Card.find(library(state=Used(used=1)))
    monkeypatch.setattr("ingestion.program.has_cuda_device", lambda: True)
    monkeypatch.setattr("ingestion.program.Card", SimpleNamespace(find=lambda: card))
    fit = """
        assert os.environ["METADL_GPU_MEMORY_BYTES"] == "2000000000"
        return MyPredictor(support_set)
    """
    predict = """
        (Path(os.environ["METADL_MODEL_DIR"]) / "much").touch()
        time.sleep(30)
    """
    result = runner(
        make_bundle(fit=fit, predict=predict), gpu_memory_budget_bytes=2 * GB, test_tasks_per_dataset=1
    )
    assert "used 8.00 GB of GPU memory, the budget is 2.00 GB" in result.failures[1]
    record = json.loads((runner.output / "ingestion.json").read_text())
    assert record["gpu_memory_budget_bytes"] == 2 * GB
    assert record["gpu_peak_bytes"] == 8 * GB
