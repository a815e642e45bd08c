"""What the process of a submission does not import before it needs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CORE = Path(__file__).parents[1] / "autometa" / "core"
HEAVY = (
    "torch._dynamo", "triton", "scipy", "sklearn", "optuna", "pandas", "matplotlib", "onnx", "onnxruntime",
    "openvino",
)  # fmt: skip


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imported_by(names: str) -> set[str]:
    return set(json.loads(run(f"import sys, json, {names}; print(json.dumps(sorted(sys.modules)))")))


@pytest.mark.medium
def test_a_submission_starts_without_heavy_libraries() -> None:
    loaded = imported_by("autometa.submission")
    assert {"torch", "timm"} <= loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.medium
def test_the_compiler_is_there_once_it_is_asked_for() -> None:
    code = """
import sys, torch, autometa.backbones
assert "torch._dynamo" not in sys.modules
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
import torch._dynamo
assert torch._dynamo.__file__ and torch._dynamo.config is not None
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist())
"""
    assert run(code).strip() == "[2.0, 2.0]"


@pytest.mark.medium
def test_whatever_else_is_asked_of_the_compiler_imports_it_at_once() -> None:
    code = f"""
import sys, torch
sys.path.insert(0, {str(CORE)!r})  # not through the package, which imports timm
from deferred_compiler import deferred_compiler
with deferred_compiler():
    import torch._dynamo
    assert "sympy" not in sys.modules
    assert torch._dynamo.config is not None
    assert "sympy" in sys.modules
print(sys.modules["torch._dynamo"].__file__ is not None)
"""
    assert run(code).strip() == "True"


@pytest.mark.medium
@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD"])
def test_an_optimizer_does_its_work_without_the_compiler_and_as_torch_does(name: str) -> None:
    code = f"""
import sys, torch
from autometa.learners import optimizers
def moved(cls):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = cls([weight], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
    return weight.tolist()
own = moved(optimizers.{name})
assert "torch._dynamo" not in sys.modules
assert own == moved(torch.optim.{name}), own
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist())
"""
    assert run(code).strip() == "[2.0, 2.0]"
