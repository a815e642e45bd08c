"""Choosing the fastest engine by a short measured race, which must save more time than it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

import torch

from autometa.backbones.engines.base import Engine, EngineSpec, reason_to_refuse
from autometa.backbones.network import PixelNetwork
from autometa.core.budget import TimeBudget
from autometa.core.machine import starts_cold, time_settled
from autometa.core.time_policy import POLICY

ROUNDS = 3
"""Number of rounds against the best engine so far, at most."""
ROUND_S = 0.2
"""A round of the reference takes this long at most, but has `CHECK_IMAGES` images or more."""
CLEAR = 2.0
"""A ratio of speeds that is clear enough without another round."""
CHECK_IMAGES = 2
"""Number of images on which an engine must agree with the reference."""
CHECK_COLD_IMAGES = 128
"""The same on devices that start cold, which are fast once they are warm: more than a graph leaves to plain calls."""
GAIN = 2.0
"""Expected ratio of the time that an engine saves to the time that building it takes, at least."""
WORTH_ROUNDING = 1.2
"""An engine of less precision must be so many times as fast as the best one in float32."""
DEAR_S = 10.0
"""An engine that is expected to take longer to build has to live up to what cheaper ones have shown."""
HOPELESS = 0.7
"""An engine that was slower than this share of the speed of the winner at one size is not built for another size."""


@dataclass(frozen=True)
class RaceInput:
    """What a race runs on: a network at a size on a device, real images uint8 [n, 3, px, px], and the widths of the
    layers of the network."""

    network: PixelNetwork
    px: int
    device: str
    images: torch.Tensor
    widths: Sequence[int]

    @property
    def to_check(self) -> torch.Tensor:
        """The images on which an engine must agree with the reference."""
        return self.images[: CHECK_COLD_IMAGES if starts_cold(self.device) else CHECK_IMAGES]


@dataclass(frozen=True)
class EngineChoice:
    """The result of a race: the winner, ready to run, and the seconds that building it took.

    `engine` is None after its memory was freed. `image_s`: seconds per image of all engines that ran; `notes`: why
    the others did not run.
    """

    name: str
    engine: Engine | None
    build_s: float
    image_s: dict[str, float]
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def clear(self) -> bool:
        """Whether the winner is so much faster than eager that another size needs no race."""
        return self.image_s[self.name] * CLEAR < self.image_s["eager"]

    def __str__(self) -> str:
        fastest_first = sorted(self.image_s.items(), key=lambda item: item[1])
        ran = [", ".join(f"{name} {1 / image_s:.0f}/s" for name, image_s in fastest_first)]
        built = [f"built in {self.build_s:.1f} s"] if self.build_s else []
        skipped = [f"{name}: {note}" for name, note in self.notes.items()]
        return f"{self.name} ({'; '.join(filter(None, [*ran, *built, *skipped]))})"


def build_checked(spec: EngineSpec, race_input: RaceInput, reference: torch.Tensor) -> Engine | str:
    """The engine, or the reason for refusing it: it cannot be built or run here, or it disagrees with `reference`,
    the eager float32 embeddings [k, sum(widths)] of the first k images."""
    try:
        engine = spec.build(race_input.network, race_input.px, race_input.device)
        output = engine(race_input.images[: len(reference)])
    except Exception as error:  # noqa: BLE001 - engines raise anything; it becomes a recorded reason
        text = (str(error).splitlines() or [""])[0]
        return f"failed ({type(error).__name__}: {text[:200]})"
    refused = reason_to_refuse(spec.precision, reference, output, race_input.widths)
    return f"refused, {refused}" if refused else engine


class Race:
    """One race between engines.

    `eager` is the reference. `n_images` must still be embedded within `budget`, whose clock measures the race.
    `earlier`, the result of a race at another size, replaces the guesses of the table.
    """

    def __init__(
        self,
        race_input: RaceInput,
        eager: Engine,
        *,
        n_images: int,
        budget: TimeBudget,
        earlier: EngineChoice | None = None,
    ) -> None:
        self._input, self._budget, self._n_images = race_input, budget, n_images
        self._earlier = earlier
        self._name, self._engine, self._build_s = "eager", eager, 0.0
        self._eager, self._precision = eager, "float32"
        self._notes: dict[str, str] = {}
        self._images = race_input.to_check
        self._reference = eager(self._images)
        image_s = self._time_per_image(eager)
        if image_s * len(self._images) < ROUND_S:
            self._images = race_input.images[: int(ROUND_S / image_s)]
            image_s = self._time_per_image(eager)
        self._image_s = {self._name: image_s}

    def run(self, specs: Mapping[str, EngineSpec]) -> EngineChoice:
        """Try the engines in order, each only if there is time for it and it can still pay off; returns the best
        one."""
        for spec in specs.values():
            if spec.name in self._image_s or self._input.device not in spec.devices:
                continue
            note = self._reason_to_skip(spec, self._promise_kept(specs)) or self._try(spec)
            if note:
                self._notes[spec.name] = note
        return EngineChoice(self._name, self._engine, self._build_s, dict(self._image_s), self._notes)

    def _promise_kept(self, specs: Mapping[str, EngineSpec]) -> float:
        """The share of the guessed speed-up that the engines which ran have reached, the best of them; at most 1.
        Where they gain little, the network leaves little to gain."""
        ran = [specs[name] for name in self._image_s if name in specs and name != "eager"]
        shares = [self._image_s["eager"] / self._image_s[spec.name] / spec.speedup for spec in ran]
        return min(max(shares, default=1.0), 1.0)

    def _reason_to_skip(self, spec: EngineSpec, promise_kept: float) -> str | None:
        """Why an engine is not worth building; None if it is."""
        if not spec.installed:
            return "not installed"
        eager_s, best_s = self._image_s["eager"], self._image_s[self._name]
        build_s, speedup = spec.build_s, spec.speedup
        speedup *= promise_kept if build_s > DEAR_S else 1.0
        if self._earlier is not None and (measured := self._earlier.image_s.get(spec.name)):
            if min(self._earlier.image_s.values()) < HOPELESS * measured:
                return "slow at another size"
            speedup = self._earlier.image_s["eager"] / measured
            build_s = self._earlier.build_s if spec.name == self._earlier.name else build_s
        saved_s = (best_s - eager_s / speedup) * self._n_images
        if saved_s <= GAIN * build_s:
            return f"does not pay over {self._n_images} images"
        if not self._budget.fits(build_s / POLICY.build_share):
            return "does not fit in the time left"
        return None

    def _try(self, spec: EngineSpec) -> str | None:
        """Build and check an engine and race it against the best one so far; returns why it was refused, or None."""
        reference = self._reference if spec.precision == "float32" else self._long_reference
        began = self._budget.clock()
        engine = build_checked(spec, self._input, reference)
        build_s = self._budget.clock() - began
        if isinstance(engine, str):
            return engine
        ratio = self._compare_with_best(engine)
        self._image_s[spec.name] = ratio * self._image_s[self._name]
        rounds_more = spec.precision != self._precision == "float32"
        if ratio < (1 / WORTH_ROUNDING if rounds_more else 1):
            self._precision = spec.precision
            self._name, self._engine, self._build_s = spec.name, engine, build_s
        return None

    @cached_property
    def _long_reference(self) -> torch.Tensor:
        """What eager float32 gives for many images: nearest centroids of a few say nothing."""
        return self._reference if starts_cold(self._input.device) else self._eager(self._input.images)

    def _compare_with_best(self, engine: Engine) -> float:
        """Time of an engine divided by that of the best one so far: the median over rounds in which both take turns,
        since the load of the machine changes; one round if the result is clear."""
        ratios = []
        for _ in range(ROUNDS):
            ratios.append(self._time_per_image(engine) / self._time_per_image(self._engine))
            if not 1 / CLEAR < ratios[0] < CLEAR:
                break
        return median(ratios)

    def _time_per_image(self, engine: Engine) -> float:
        """Seconds per image in one round; always above 0."""
        seconds = time_settled(lambda: engine(self._images), self._input.device, self._budget.clock)
        return max(seconds / len(self._images), 1e-9)
