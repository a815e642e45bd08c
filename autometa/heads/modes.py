"""Modes: ways to answer an episode from the features of several views at once.

Metrics put the features of each view into a space of unit length. The features of all inputs of a mode lie side by
side, so that inner products are the mean of those of the inputs. A mode refines these inner products with the episode
at hand, then assigns queries by optimal transport. Several modes, averaged, are better than each of them: which
shrinkage or which refinement is best differs from dataset to dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F

from autometa.heads.features import FeatureBatch
from autometa.heads.guard import find_suitable
from autometa.heads.joint import Joint
from autometa.heads.ot_map import assign_by_transport, without_transport

SHARPNESS, STEP = 15.0, 0.4
"""Of the transport of all modes."""
ZCA_SHRINKAGE = 0.1
"""Share of an eigenvalue itself, beside the mean of all, that it is divided by."""
ADAPT_STEPS, ADAPT_RATE, COSINE_SCALE = 15, 0.02, 10.0
LEAST_EIGENVALUE = 1e-5
"""Directions of the support with less than this share of the largest eigenvalue are left as they are."""

Refine = Callable[[Joint], Joint]
Key = tuple[str, bool]
"""The name of a metric, and whether each layer is an input of its own."""


@dataclass(frozen=True)
class Mode:
    """`metrics`: names in `METRICS`, each applied to every view; `refine`: what is done to the inner products of an
    episode; `single_layers`: each layer of a view is an input of its own instead of all layers joined."""

    metrics: tuple[str, ...]
    refine: Refine
    single_layers: bool = False

    @property
    def keys(self) -> tuple[Key, ...]:
        """The features that it asks for."""
        return tuple((metric, self.single_layers) for metric in self.metrics)


def keep(joint: Joint) -> Joint:
    """The inner products as they are."""
    return joint


def whiten_task(joint: Joint) -> Joint:
    """Inner products after whitening the images of each episode as far as they say: an eigenvalue λ of m images
    becomes λ / (a·λ/m + (1 - a)·mean eigenvalue/m), with a = `ZCA_SHRINKAGE`; then unit length."""
    real = (joint.labels.sum(1) + joint.query_mask) > 0
    m = real.sum(1, keepdim=True).clamp(min=1).to(joint.gram.dtype)
    values, vectors = torch.linalg.eigh(joint.gram)
    values = values.clamp(min=0)
    mean = values.sum(1, keepdim=True) / m
    values = values / ((ZCA_SHRINKAGE * values + (1 - ZCA_SHRINKAGE) * mean) / m).clamp(min=1e-12)
    return _with_unit_length(joint, (vectors * values[:, None, :]) @ vectors.transpose(1, 2))


def adapt_to_support(joint: Joint) -> Joint:
    """Inner products after a linear map of the span of the support that `ADAPT_STEPS` steps of Adam train, from the
    identity on, to classify the support by its class means (cosine). Episodes with one image a class stay as they
    are: there an image is its class mean."""
    s = int((joint.labels.sum(1) > 0).sum(1).max())
    shots = joint.labels.sum(-1).amax(1)
    coordinates = _support_coordinates(joint.gram, s)
    labels = joint.labels[:, :, :s]
    weights = torch.eye(s, device=joint.gram.device).repeat(len(joint.gram), 1, 1).requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=ADAPT_RATE)
    target, real = labels.argmax(1), labels.sum(1) > 0
    with torch.enable_grad():
        for _ in range(ADAPT_STEPS):
            moved = F.normalize(coordinates[:, :s] @ weights.transpose(1, 2), dim=2)
            means = F.normalize(labels @ moved, dim=2)
            logits = COSINE_SCALE * moved @ means.transpose(1, 2)
            logits = logits.masked_fill(~joint.present[:, None, :], float("-inf"))
            losses = F.cross_entropy(logits.transpose(1, 2), target, reduction="none") * real
            optimizer.zero_grad()
            (losses.sum(1) / real.sum(1)).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    weights = weights.detach()
    moved = coordinates @ weights.transpose(1, 2)
    gram = joint.gram + moved @ moved.transpose(1, 2) - coordinates @ coordinates.transpose(1, 2)
    return _with_unit_length(joint, torch.where((shots > 1)[:, None, None], gram, joint.gram))


def _support_coordinates(gram: torch.Tensor, s: int) -> torch.Tensor:
    """Coordinates [b, m, s] of all images in an orthonormal basis of the span of the first `s`."""
    values, vectors = torch.linalg.eigh(gram[:, :s, :s].double())
    kept = values > LEAST_EIGENVALUE * values[:, -1:]
    basis = vectors * torch.where(kept, values.clamp(min=1e-30).rsqrt(), 0.0)[:, None, :]
    coordinates: torch.Tensor = gram[:, :, :s] @ basis.to(gram.dtype)
    return coordinates


def _with_unit_length(joint: Joint, gram: torch.Tensor) -> Joint:
    length = gram.diagonal(dim1=1, dim2=2)
    scale = torch.where(length > 1e-12, length.clamp(min=1e-12).rsqrt(), 0.0)
    return replace(joint, gram=gram * scale[:, :, None] * scale[:, None, :])


MODES: dict[str, Mode] = {
    "adapted": Mode(("root_white_prior", "white_prior"), adapt_to_support),
    "root": Mode(("root_white_prior",), whiten_task),
    "plain_mild": Mode(("white_mild_prior",), whiten_task),
    "plain": Mode(("white_prior",), whiten_task),
    "root_mild": Mode(("root_white_mild_prior",), whiten_task),
    "layers": Mode(("root_white",), keep, single_layers=True),
    "transport": Mode(("root_white",), keep),
}
"""In the order in which they are dropped last. `transport` alone is what the others are compared with."""
SIX_MODES = ("adapted", "root", "plain_mild", "plain", "root_mild", "layers")


def find_mode(name: str) -> Mode:
    """The row of `MODES`; ValueError names the valid choices."""
    if name not in MODES:
        raise ValueError(f"unknown mode `{name}`; one of {', '.join(MODES)}")
    return MODES[name]


def collect_keys(names: Iterable[str]) -> set[Key]:
    """The features that the modes of these names ask for together."""
    return {key for name in names for key in find_mode(name).keys}


def join_features(inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Features [..., d_i] of unit length → side by side, [..., sum of d_i], of unit length: inner products are the
    mean of those of the inputs."""
    return torch.cat([features / len(inputs) ** 0.5 for features in inputs], dim=-1)


def apply_modes(
    names: Sequence[str], batches: Mapping[Key, FeatureBatch], *, balanced: bool = False
) -> torch.Tensor:
    """Scores [modes, b, q, n], log-probabilities, of several modes on the same episodes.

    `batches` have the features of each key that the modes ask for, put together over all views by `join_features`.
    Episodes that are not suitable for optimal transport (see `guard`; `balanced`: the queries are declared to be
    equally many of each class) are answered by the class means, each query alone.
    """
    modes = [find_mode(name) for name in names]
    batches = {key: batches[key].cleaned() for mode in modes for key in mode.keys}
    first = batches[modes[0].keys[0]]
    suitable = find_suitable(first, needs_balance=True, balanced=balanced)
    transported = _transport(modes, batches) if bool(suitable.any()) else None
    if transported is not None and bool(suitable.all()):
        return transported
    inductive = [
        torch.stack([without_transport(batches[key], sharpness=SHARPNESS) for key in mode.keys]).mean(0)
        for mode in modes
    ]
    alone = first.mask_absent(torch.stack(inductive)).log_softmax(-1)
    return alone if transported is None else torch.where(suitable[:, None, None], transported, alone)


def _transport(modes: Sequence[Mode], batches: Mapping[Key, FeatureBatch]) -> torch.Tensor:
    """Scores [modes, b, q, n] by optimal transport. Inner products of each key are computed once, and the modes are
    transported as one batch, since small matrices cost little more when there are more of them."""
    products: dict[Key, torch.Tensor] = {}
    for key, batch in batches.items():
        both = torch.cat([batch.support, batch.query], dim=1)
        products[key] = both @ both.transpose(1, 2)
    joints = [_refine(mode, batches[mode.keys[0]], products) for mode in modes]
    together = Joint(*(torch.cat([getattr(joint, f.name) for joint in joints]) for f in fields(Joint)))
    plan = assign_by_transport(together, SHARPNESS, STEP)
    parts = torch.split(plan, len(joints[0].gram))
    batch = next(iter(batches.values()))
    return torch.stack([joints[0].query_scores(batch, part) for part in parts])


def _refine(mode: Mode, batch: FeatureBatch, products: Mapping[Key, torch.Tensor]) -> Joint:
    """The episodes of `batch` with the mean inner products of the mode's keys, centred and refined."""
    mean = torch.stack([products[key] for key in mode.keys]).mean(0)
    return mode.refine(Joint.of(replace(batch, products=lambda: mean), centred=True))
