"""Tiny transfer learners, and episodes that say which training classes theirs are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from learner_cases import PX, image_episode, images_like

from autometa.learners.base import EpisodicLearner
from autometa.learners.encoder import EncoderSpec
from autometa.learners.episodes import InputEpisodes
from autometa.learners.hooks import ClassTrained
from autometa.learners.recipe import LEARNERS, Recipe, build_learner

SMALLEST = EncoderSpec(network="conv4", px=PX, channels=4)
TRANSFER = [name for name, spec in LEARNERS.items() if spec.family == "transfer"]
CLASSIFYING = ["finetune", "imprinted", "simpleshot", "adapters", "metadelta", "metadelta_plus_plus"]
ALONE = [name for name in TRANSFER if not getattr(LEARNERS[name].cls, "transductive", False)]
"""Learners whose answer does not depend on other queries."""
QUICK: dict[str, dict[str, Any]] = {
    "train_from_scratch": {"steps": 6},
    "finetune": {"steps": 6, "scope": "all"},
    "pmf": {"steps": 4},
    "adapters": {"steps": 4},
}
CLASSES = 12


def built(name: str, encoder: EncoderSpec = SMALLEST, **options: Any) -> Any:
    """A learner as after some training, in evaluation mode: running statistics are those of images, whatever
    a task may adapt it does adapt, and few steps do."""
    learner: Any = build_learner(Recipe(learner=name, encoder=encoder, options=QUICK.get(name, {}) | options))
    norms = [module for module in learner.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        features = learner.train().encoder.vectors(images_like(torch.arange(8).repeat(3), 99))
    for norm in norms:
        norm.momentum = 0.1
    if name == "simpleshot":
        learner.mean.copy_(features.mean(0))
    if name == "pmf":
        learner.rate.fill_(1e-2)
    if name == "metadelta":
        learner.sharpness.fill_(5.0)
    return learner.eval()


def classified_episode(ways: int, shots: int, queries: int, seed: int = 0) -> InputEpisodes:
    """An episode of some of `CLASSES` training classes."""
    classes = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(seed))[:ways]
    return replace(image_episode(ways, shots, queries, seed), classes=classes[None])


def begun(learner: EpisodicLearner) -> torch.nn.Module:
    """The classifier of a learner whose training begins."""
    assert isinstance(learner, ClassTrained)
    torch.manual_seed(3)
    return learner.begin_training(CLASSES)
