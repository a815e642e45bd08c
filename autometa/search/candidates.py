"""Which backbones are worth trying, and in what order, before any of them is built or downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from autometa.backbones import BackboneSpec, kind_of, predict_bytes
from autometa.core.time_policy import POLICY, TimePolicy

SAME_PRETRAINING, SAME_KIND = 0.9, 0.9
"""What a backbone is expected to gain beside one that has learned from the same images, and beside one that is of the
same kind, in relation to one that differs in both. Of the packaged backbones, those that have both in common with
EfficientNet-Lite0 gained as much beside it as the one that differs: so this does little more than break ties."""
PROBE_S, ALIKE_PROBE_S = 4.0, 1.0
"""Seconds to build a backbone with its engine and to measure it, about; where one of its kind was measured, whose
engine it mostly takes without a race."""

ImageSeconds = Callable[[BackboneSpec], float | None]


@dataclass(frozen=True)
class Room:
    """What a run has: seconds, bytes of memory, bytes to download, and the images that each backbone embeds, of a
    size in pixels, so many at a time."""

    seconds: float
    memory_bytes: float
    n_images: int
    download_bytes: float = float("inf")
    px: int = 128
    batch: int = 64


def newness(spec: BackboneSpec, others: Iterable[BackboneSpec]) -> float:
    """How much a backbone is expected to gain beside others, in relation to one that differs from all of them."""
    shares = [
        (SAME_PRETRAINING if other.pretraining == spec.pretraining else 1.0)
        * (SAME_KIND if kind_of(other.name) == kind_of(spec.name) else 1.0)
        for other in others
    ]
    return min(shares, default=1.0)


def order_by_gain(
    specs: Sequence[BackboneSpec], n_images: int, image_s: ImageSeconds, held: Sequence[BackboneSpec] = ()
) -> list[BackboneSpec]:
    """Backbones by expected gain per second, beside those that are `held` and those before them. One of which nothing
    is known comes last."""
    chosen, rest = list(held), list(specs)
    while rest:
        best = max(rest, key=lambda spec: newness(spec, chosen) / _seconds(spec, n_images, image_s, chosen))
        rest.remove(best)
        chosen.append(best)
    return chosen[len(held) :]


def choose_backbones(
    specs: Sequence[BackboneSpec],
    room: Room,
    image_s: ImageSeconds,
    here: Callable[[BackboneSpec], bool],
    policy: TimePolicy = POLICY,
) -> list[BackboneSpec]:
    """The backbones that a run of this size has room for, by expected gain per second: all together in the share of
    the time that is for embedding, each in memory, and those that are not `here` within the bytes to download."""
    seconds_left, bytes_left = policy.embed_share * room.seconds, room.download_bytes
    found: list[BackboneSpec] = []
    for spec in order_by_gain(specs, room.n_images, image_s):
        n_bytes = 0 if here(spec) else weight_bytes(spec)
        seconds = _seconds(spec, room.n_images, image_s, found)
        if (
            seconds <= min(seconds_left, policy.backbone_share * room.seconds)
            and n_bytes <= bytes_left
            and predict_bytes(spec, room.px, room.batch) <= room.memory_bytes
        ):
            found.append(spec)
            seconds_left, bytes_left = seconds_left - seconds, bytes_left - n_bytes
    return found


def weight_bytes(spec: BackboneSpec) -> int:
    """Size of the weights in float32, about what their file has."""
    return int(4e6 * spec.parameters_m)


def _seconds(
    spec: BackboneSpec, n_images: int, image_s: ImageSeconds, others: Iterable[BackboneSpec]
) -> float:
    """To build, measure and use a backbone after others; infinite where that is not known."""
    seconds, kind = image_s(spec), kind_of(spec.name)
    if seconds is None:
        return float("inf")
    alike = kind and any(kind_of(other.name) == kind for other in others)
    return (ALIKE_PROBE_S if alike else PROBE_S) + n_images * seconds
