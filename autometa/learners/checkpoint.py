"""The state of a training on disk: safetensors and JSON, replaced atomically."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from autometa.core.errors import ArtifactError
from autometa.core.files import load_tensors, read_versioned, write_model, write_tensors

PROGRESS = "training.json"
TENSORS = "training-{step}.safetensors"


class Progress(BaseModel):
    """Steps made, validations since the best one, seconds spent, the share of the training that was done at the
    best one or when the rate was last reduced, what the rate is multiplied by, accuracies per validation episode of
    the untrained and the best state, the latter's log-loss, whether the loss is no number any more, and the state of
    the source of episodes (None: it has none)."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    format: Literal["autometa-training-2"] = "autometa-training-2"
    step: int = 0
    stale: int = 0
    seconds: float = 0.0
    best_at: float = 0.0
    rate_scale: float = Field(default=1.0, gt=0, le=1)
    untrained: list[float] = []
    best: list[float] = []
    best_log_loss: float = Field(default=math.inf, ge=0)
    diverged: bool = False
    source: dict[str, Any] | None = None


def save_progress(
    folder: Path,
    progress: Progress,
    learner: torch.nn.Module,
    best: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write everything that a training needs to go on; a kill leaves the state before or the new one."""
    tensors = {f"learner.{name}": tensor for name, tensor in learner.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors["random"] = torch.get_rng_state()
    if any(parameter.is_cuda for parameter in learner.parameters()):
        tensors["random_cuda"] = torch.cuda.get_rng_state()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / TENSORS.format(step=progress.step)
    write_tensors(file, tensors)
    write_model(folder / PROGRESS, progress)
    for old in folder.glob(TENSORS.format(step="*")):
        if old != file:
            old.unlink()


def load_progress(
    folder: Path, learner: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Progress, dict[str, torch.Tensor]] | None:
    """The progress and the best state of a training that was interrupted; learner, optimizer and torch's
    random numbers are set to where it was. None where there is none; ArtifactError where it is damaged."""
    file = folder / PROGRESS
    if not file.exists():
        return None
    progress = read_versioned(file, Progress, "state of a training", "delete it to train anew")
    file = folder / TENSORS.format(step=progress.step)
    tensors = load_tensors(folder, file.name)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in _select("optimizer.", tensors).items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    try:
        learner.load_state_dict(_select("learner.", tensors))
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(tensors["random"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise ArtifactError(f"{file}: of another learner ({error}); delete it to train anew") from error
    if "random_cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random_cuda"])
    return progress, _select("best.", tensors)


def _select(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


@contextmanager
def changing_nothing(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Restores the weights and statistics of a module and random numbers afterwards, and drops its gradients."""
    before = copy.deepcopy(module.state_dict())
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        yield
    optimizer.zero_grad()
    module.load_state_dict(before)
