"""Which engine is the fastest here: a short measured race, whose own time must pay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch

from autometa.backbones.engines.base import TOLERANCE, Engine, EngineSpec, disagreement
from autometa.backbones.engines.onnx_export import to_onnx
from autometa.backbones.network import PixelNetwork
from autometa.core.budget import TimeBudget

ROUNDS = 3
ROUND_S = 0.2
"""A round of the reference is this long at most (but has two images at least)."""
CLEAR = 2.0
"""A ratio of speeds that needs no further round."""
CHECK_IMAGES = 2
GAIN = 2.0
"""Time that an engine must be expected to save, over the time that building it takes."""
BUILD_SHARE = 0.25
"""Share of the time left that building an engine may take."""
HOPELESS = 0.7
"""An engine that reached this share of the winner's speed, or less, at one size is not built for another."""


@dataclass(frozen=True)
class RaceInput:
    """What is raced over: a network at a size on a device, some real images uint8 [n, 3, px, px] already of
    that size, and how long its layers are."""

    network: PixelNetwork
    px: int
    device: str
    images: torch.Tensor
    widths: Sequence[int]


@dataclass(frozen=True)
class EngineChoice:
    """The winner, ready to run (None: it rests), with the seconds that building it took; seconds per image of all
    that ran, and why the others did not."""

    name: str
    engine: Engine | None
    build_s: float
    image_s: dict[str, float]
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def clear(self) -> bool:
        """Whether it won so clearly over the eager network that another size needs no race."""
        return self.image_s[self.name] * CLEAR < self.image_s["eager"]

    def __str__(self) -> str:
        fastest_first = sorted(self.image_s.items(), key=lambda item: item[1])
        ran = [", ".join(f"{name} {1 / image_s:.0f}/s" for name, image_s in fastest_first)]
        built = [f"built in {self.build_s:.1f} s"] if self.build_s else []
        skipped = [f"{name}: {note}" for name, note in self.notes.items()]
        return f"{self.name} ({'; '.join(filter(None, [*ran, *built, *skipped]))})"


def build_checked(spec: EngineSpec, course: RaceInput, reference: torch.Tensor) -> Engine | str:
    """The engine, or the reason why it is refused: it can not be built or run here, or it does not agree
    with `reference`, the eager float32 embeddings of the course's first images."""
    try:
        engine = spec.build(course.network, course.px, course.device)
        output = engine(course.images[: len(reference)])
    except Exception as error:  # noqa: BLE001 - engines raise anything; here it becomes a recorded refusal
        text = (str(error).splitlines() or [""])[0]
        return f"failed ({type(error).__name__}: {text[:200]})"
    error_size = disagreement(reference, output, course.widths)
    if not error_size <= TOLERANCE:
        return f"refused, differs from eager by {error_size:.1e} (at most {TOLERANCE:.0e})"
    return engine


class Race:
    """One race. `eager` is the reference; `n_images` are still to be embedded, within `budget`, whose clock
    measures. `build_s` and `speedup` known from a race at another size replace what the table expects."""

    def __init__(
        self,
        course: RaceInput,
        eager: Engine,
        *,
        n_images: int,
        budget: TimeBudget,
        earlier: EngineChoice | None = None,
    ) -> None:
        self._course, self._budget, self._n_images = course, budget, n_images
        self._earlier = earlier
        self._name, self._engine, self._build_s = "eager", eager, 0.0
        self._notes: dict[str, str] = {}
        self._reference = eager(course.images[:CHECK_IMAGES])
        self._images = course.images[:CHECK_IMAGES]
        image_s = self._once(eager)
        if image_s * CHECK_IMAGES < ROUND_S:
            self._images = course.images[: int(ROUND_S / image_s)]
            image_s = self._once(eager)
        self._image_s = {self._name: image_s}

    def run(self, specs: Mapping[str, EngineSpec]) -> EngineChoice:
        """Try the engines in order, each only if it fits and can still pay."""
        for spec in specs.values():
            if spec.name in self._image_s or self._course.device not in spec.devices:
                continue
            note = self._reason_to_skip(spec) or self._try(spec)
            if note:
                self._notes[spec.name] = note
        to_onnx.cache_clear()
        return EngineChoice(self._name, self._engine, self._build_s, dict(self._image_s), self._notes)

    def _reason_to_skip(self, spec: EngineSpec) -> str | None:
        if not spec.installed:
            return "not installed"
        eager_s, best_s = self._image_s["eager"], self._image_s[self._name]
        build_s, speedup = spec.build_s, spec.speedup
        if self._earlier is not None and (measured := self._earlier.image_s.get(spec.name)):
            if min(self._earlier.image_s.values()) < HOPELESS * measured:
                return "slow at another size"
            speedup = self._earlier.image_s["eager"] / measured
            build_s = self._earlier.build_s if spec.name == self._earlier.name else build_s
        saved_s = (best_s - eager_s / speedup) * self._n_images
        if saved_s <= GAIN * build_s:
            return f"does not pay over {self._n_images} images"
        if not self._budget.fits(build_s / BUILD_SHARE):
            return "does not fit in the time left"
        return None

    def _try(self, spec: EngineSpec) -> str | None:
        """Build, check and race one engine against the best so far, in turns."""
        began = self._budget.clock()
        engine = build_checked(spec, self._course, self._reference)
        build_s = self._budget.clock() - began
        if isinstance(engine, str):
            return engine
        ratio = self._against_best(engine)
        self._image_s[spec.name] = ratio * self._image_s[self._name]
        if ratio < 1:
            self._name, self._engine, self._build_s = spec.name, engine, build_s
        return None

    def _against_best(self, engine: Engine) -> float:
        """Time of an engine over that of the best so far: the median of rounds in turns, since other load
        comes and goes; a single round where that is clear enough."""
        ratios = []
        for _ in range(ROUNDS):
            ratios.append(self._once(engine) / self._once(self._engine))
            if not 1 / CLEAR < ratios[0] < CLEAR:
                break
        return median(ratios)

    def _once(self, engine: Engine) -> float:
        """Seconds per image, never nothing."""
        began = self._budget.clock()
        engine(self._images)
        return max((self._budget.clock() - began) / len(self._images), 1e-9)
