"""What the choice of an engine leaves in memory, what it says before it is made, and engines in several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from engine_cases import IMAGES, PX, tiny

from autometa.backbones import embedding_parts
from autometa.backbones.embedding_parts import Pass, state_of
from autometa.backbones.engines import EAGER, ENGINES, EngineChoice, EngineSpec
from autometa.backbones.engines.base import Engine
from autometa.backbones.engines.onnx_export import to_onnx
from autometa.backbones.engines.openvino import OpenVino
from autometa.backbones.network import PixelNetwork


def after_export(run: Callable[[PixelNetwork], Engine]) -> dict[str, EngineSpec]:
    """An engine that is built from the exported network, in a table of its own."""

    def build(network: PixelNetwork, px: int, device: str) -> Engine:
        assert to_onnx(network, px) == b"the network" and to_onnx.cache_info().currsize == 1
        return run(network)

    return {"exported": EngineSpec("exported", build, 0.001, 50.0)}


@pytest.fixture(autouse=True)
def _exports_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(network: Any, example: Any, file: Any, **_: Any) -> None:
        file.write(b"the network")

    monkeypatch.setattr("torch.onnx.export", export)
    to_onnx.cache_clear()


def test_a_preferred_engine_leaves_no_exported_network_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, engines = tiny("test_resnet"), after_export(lambda network: network)
    monkeypatch.setitem(ENGINES, "exported", engines["exported"])
    backbone.prefer("exported", PX)
    with torch.inference_mode():
        backbone.prepare(IMAGES, PX, n_images=1000, engines=engines)
        choice = backbone.choice(PX)
        assert choice is not None and choice.name == "exported"
        assert to_onnx.cache_info().currsize == 0
        backbone.rest()
        backbone.prepare(IMAGES, PX, n_images=1000)
    assert backbone.is_ready(PX)
    assert to_onnx.cache_info().currsize == 0, "of an engine that was woken"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("it does not run")])
def test_a_race_that_fails_leaves_no_exported_network_in_memory(error: BaseException) -> None:
    def fail(network: PixelNetwork) -> Engine:
        raise error

    backbone = tiny("test_resnet")
    try:
        backbone.prepare(IMAGES, PX, n_images=10**6, engines=after_export(fail))
    except KeyboardInterrupt:
        assert isinstance(error, KeyboardInterrupt)
    assert to_onnx.cache_info().currsize == 0


def test_what_is_preferred_for_a_size_goes_before_what_another_size_has() -> None:
    engines = tiny("test_resnet").engines
    assert engines.name_at(64) is None
    engines.prefer("openvino", 96)
    engines.keep(64, EngineChoice(EAGER, None, 0.0, {}))
    assert engines.name_at(64) == EAGER
    assert engines.name_at(96) == "openvino"
    assert engines.name_at(128) == EAGER
    engines.keep(96, EngineChoice("onnxruntime", None, 0.0, {}))
    assert engines.name_at(96) == "onnxruntime"


class OneAtATime:
    """Infers for one thread; OpenVINO, too, refuses a second one."""

    busy = False

    def infer(self, inputs: dict[int, np.ndarray], **_: Any) -> list[np.ndarray]:
        if self.busy:
            raise RuntimeError("Infer Request is busy")
        self.busy = True
        time.sleep(0.005)
        self.busy = False
        return [inputs[0].reshape(len(inputs[0]), -1)[:, :2].astype(np.float32)]


def test_threads_share_the_request_of_openvino() -> None:
    engine = OpenVino.__new__(OpenVino)  # its package may be missing
    engine._request, engine._in_use = OneAtATime(), threading.Lock()
    images = torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1).repeat(1, 3, 1, 1)
    results: list[Any] = [None] * 4

    def infer(number: int) -> None:
        try:
            results[number] = engine(images + number)[:, 0].tolist()
        except RuntimeError as error:
            results[number] = str(error)

    threads = [threading.Thread(target=infer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[float(i + number) for i in range(40)] for number in range(4)]


def test_a_process_tells_architectures_with_equal_weights_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_parts, "_HELD", type(embedding_parts._HELD)())
    backbone = tiny("test_resnet")
    one = Pass.of(backbone, PX, flip=False)
    other = replace(one, spec=replace(one.spec, timm_name="test_resnet.r160_in1k"))
    state = state_of(backbone)
    assert embedding_parts._network(one, state).spec == one.spec
    assert embedding_parts._network(other, state).spec == other.spec
    assert embedding_parts._network(one, state) is embedding_parts._network(one, state)
