"""Modes: ways to answer an episode from the features of several views at once.

Metrics put the features of each view into a space of unit length. The features of all inputs of a mode lie side by
side, so that inner products are the mean of those of the inputs. A mode refines these inner products with the episode
at hand, then assigns queries by optimal transport. Several modes, averaged, are better than each of them: which
shrinkage or which refinement is best differs from dataset to dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache

import torch

from autometa.heads.features import FeatureBatch
from autometa.heads.guard import find_suitable
from autometa.heads.joint import Joint
from autometa.heads.ot_map import assign_by_transport, without_transport
from autometa.heads.refine import DEFAULT_REFINEMENT, Refine, Refinement, adapt_to_support, keep, whiten_task
from autometa.heads.solve import look_up_products, support_products

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


MODES: dict[str, Mode] = {
    "adapted": Mode(("root_white_prior", "white_prior"), adapt_to_support),
    "root": Mode(("root_white_prior",), whiten_task),
    "plain_mild": Mode(("white_mild_prior",), whiten_task),
    "plain": Mode(("white_prior",), whiten_task),
    "root_mild": Mode(("root_white_mild_prior",), whiten_task),
    "layers": Mode(("root_white",), keep, single_layers=True),
    "transport": Mode(("root_white",), keep),
    "unfitted": Mode(("root_l2",), whiten_task),
}
"""In the order in which they are dropped last. `transport` alone is what the others are compared with; `unfitted`
needs no meta-train images."""
SIX_MODES = ("adapted", "root", "plain_mild", "plain", "root_mild", "layers")
UNFITTED = ("unfitted",)
"""The mode that needs no classes to fit metrics to, and stores none."""


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
    if len(inputs) == 1:
        return inputs[0]
    return torch.cat(list(inputs), dim=-1).div_(len(inputs) ** 0.5)


def apply_modes(
    names: Sequence[str],
    batches: Mapping[Key, FeatureBatch],
    *,
    balanced: bool = False,
    refinement: Refinement = DEFAULT_REFINEMENT,
) -> torch.Tensor:
    """Scores [modes, b, q, n], log-probabilities, of several modes on the same episodes.

    `batches` have the features of each key that the modes ask for, put together over all views by `join_features`.
    Episodes that are not suitable for optimal transport (see `guard`; `balanced`: the queries are declared to be
    equally many of each class) are answered by `answer_alone`.
    """
    modes = [find_mode(name) for name in names]
    batches = {key: batches[key].cleaned() for mode in modes for key in mode.keys}
    key = modes[0].keys[0]
    first = batches[key]

    @cache
    def products(of: Key) -> torch.Tensor:
        return _multiply(batches[of])

    looked_up = replace(first, products=lambda: products(key))
    suitable = find_suitable(looked_up, needs_balance=True, balanced=balanced)
    transported = _transport(modes, first, products, refinement) if bool(suitable.any()) else None
    if transported is not None and bool(suitable.all()):
        return transported
    alone = answer_alone(names, batches, refinement=refinement)
    return alone if transported is None else torch.where(suitable[:, None, None], transported, alone)


def answer_alone(
    names: Sequence[str],
    batches: Mapping[Key, FeatureBatch],
    *,
    refinement: Refinement = DEFAULT_REFINEMENT,
) -> torch.Tensor:
    """As `apply_modes`, but each query is answered alone, by the class means."""
    inductive = []
    for mode in map(find_mode, names):
        cleaned = [batches[key].cleaned() for key in mode.keys]
        scores = [without_transport(batch, sharpness=refinement.sharpness) for batch in cleaned]
        inductive.append(cleaned[0].mask_absent(torch.stack(scores).mean(0)))
    return torch.stack(inductive).log_softmax(-1)


def _multiply(batch: FeatureBatch) -> torch.Tensor:
    """Inner products [b, s + q, s + q] of all images, support first."""
    known = look_up_products(batch)
    if known is not None:
        return known
    own, across = support_products(batch)
    below = torch.cat([across.transpose(1, 2), batch.query @ batch.query.transpose(1, 2)], dim=2)
    return torch.cat([torch.cat([own, across], dim=2), below], dim=1)


def _transport(
    modes: Sequence[Mode],
    batch: FeatureBatch,
    products: Callable[[Key], torch.Tensor],
    refinement: Refinement,
) -> torch.Tensor:
    """Scores [modes, b, q, n] by optimal transport, for the episodes of `batch` with the mean inner products of the
    keys of each mode. All modes go as one batch, since small matrices cost little more when there are more of
    them."""
    b, k = len(batch.ways), len(modes)
    means = torch.cat([torch.stack([products(key) for key in mode.keys]).mean(0) for mode in modes])
    together = replace(
        batch,
        support=batch.support[..., :0].repeat(k, 1, 1),  # inner products stand for the features
        support_labels=batch.support_labels.repeat(k, 1),
        query=batch.query[..., :0].repeat(k, 1, 1),
        ways=batch.ways.repeat(k),
        query_real=batch.query_mask.repeat(k, 1),
        products=lambda: means,
    )
    joint = _refine([mode.refine for mode in modes], Joint.of(together, centred=True), refinement)
    plan = assign_by_transport(joint, refinement.sharpness, refinement.step)
    scores = joint.query_scores(together, plan)
    return scores.reshape(k, b, *scores.shape[1:])


def _refine(refines: Sequence[Refine], joint: Joint, refinement: Refinement) -> Joint:
    """The episodes [modes·b] of `joint`, those of each mode as its place in `refines` [modes] says. Modes that are
    refined alike are refined together."""
    by_mode = torch.arange(len(joint.gram), device=joint.gram.device).reshape(len(refines), -1)
    gram = torch.empty_like(joint.gram)
    for refine in dict.fromkeys(refines):
        rows = by_mode[[place for place, each in enumerate(refines) if each is refine]].flatten()
        part = Joint(*(getattr(joint, field.name)[rows] for field in fields(Joint)))
        gram[rows] = refine(part, refinement).gram
    return replace(joint, gram=gram)
