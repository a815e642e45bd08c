"""Meta-steps of MAML that autometa's are compared with: a plain loop in PyTorch, and learn2learn."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from autometa.learners.episodes import InputEpisodes

WAYS, RATE = 5, 0.1
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Step = Callable[[], object]
Answering = Callable[[torch.Tensor], torch.Tensor]


class Network(nn.Module):
    """Conv-4 as in the examples of learn2learn: convolution, batch norm, ReLU, pooling; head of zeros."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(4):
            norm = nn.BatchNorm2d(64, track_running_stats=False)
            convolution = nn.Conv2d(3 if i == 0 else 64, 64, 3, padding=1, bias=False)
            layers += [convolution, norm, nn.ReLU(), nn.MaxPool2d(2)]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(64, WAYS)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels [n, 3, px, px] → logits."""
        logits: torch.Tensor = self.head(self.body(pixels).flatten(1))
        return logits


def plain(batch: InputEpisodes, network: nn.Module, adapt: Callable[..., Answering]) -> Step:
    """A meta-step that is a loop over tasks; `adapt` gives the adapted network of a support set."""
    support, query = ((images.float() / 127.5 - 1) for images in (batch.support, batch.query))

    def step() -> None:
        network.zero_grad()
        for place in range(len(support)):
            adapted: Any = adapt(support[place], batch.support_labels[place])
            (F.cross_entropy(adapted(query[place]), batch.query_labels[place]) / len(support)).backward()

    return step


def loop(batch: InputEpisodes, *, first_order: bool) -> tuple[Step, nn.Module]:
    """A meta-step in plain PyTorch."""
    network = Network().to(DEVICE)

    def adapt(images: torch.Tensor, labels: torch.Tensor) -> Answering:
        named = dict(network.named_parameters())
        loss = F.cross_entropy(network(images), labels)
        gradients = torch.autograd.grad(loss, list(named.values()), create_graph=not first_order)
        moved = {n: p - RATE * g for (n, p), g in zip(named.items(), gradients, strict=True)}

        def step(x: torch.Tensor) -> torch.Tensor:
            answer: torch.Tensor = torch.func.functional_call(network, moved, (x,))
            return answer

        return step

    return plain(batch, network, adapt), network


def learn2learn(batch: InputEpisodes, *, first_order: bool) -> tuple[Step, nn.Module]:
    """A meta-step of learn2learn's MAML."""
    algorithm = importlib.import_module("learn2learn.algorithms.maml")
    network = Network().to(DEVICE)
    maml = algorithm.MAML(network, lr=RATE, first_order=first_order)

    def adapt(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
        clone: nn.Module = maml.clone()
        clone.adapt(F.cross_entropy(clone(images), labels))
        return clone

    return plain(batch, network, adapt), network


def offer_learn2learn(source: Path | None) -> bool:
    """Make `learn2learn.algorithms` importable without running the package's `__init__`."""
    if source is None:
        found = importlib.util.find_spec("learn2learn")
        places = list(found.submodule_search_locations or []) if found else []
    else:
        places = [str(source / "learn2learn")]
    if not places or not (Path(places[0]) / "algorithms" / "maml.py").exists():
        return False
    for name, folder in (("learn2learn", places[0]), ("learn2learn.algorithms", f"{places[0]}/algorithms")):
        module = types.ModuleType(name)
        module.__path__ = [folder]
        sys.modules[name] = module
    return True
