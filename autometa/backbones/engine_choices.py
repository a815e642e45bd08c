"""The engines of one network: which is chosen for each size, how it is chosen, and what happens when it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from autometa.backbones.engines import (
    EAGER,
    ENGINES,
    Engine,
    EngineChoice,
    EngineSpec,
    Race,
    RaceInput,
    build_checked,
)
from autometa.backbones.engines.onnx_export import to_onnx
from autometa.core.budget import TimeBudget, stopwatch
from autometa.core.chunks import is_out_of_memory
from autometa.core.machine import starts_cold

WORTH_BUILDING = 300
"""So few images are embedded eagerly while another engine is built."""


class EngineChoices:
    """Sizes are those that the network gets. `name`: of the network, for `report`, which gets a line where an engine
    is given up; `eager` is always there."""

    def __init__(self, name: str, eager: Engine, report: Callable[[str], None]) -> None:
        self._name, self._eager, self._report = name, eager, report
        self._choices: dict[int, EngineChoice] = {}
        self._preferred: dict[int, str] = {}
        self._usual: str | None = None

    def prefer(self, engine: str, size: int) -> None:
        """Use this engine at this size without a race (it is still checked on a few images)."""
        self._preferred[size] = self._usual = engine

    def forget(self, size: int, *, whatever: bool) -> None:
        """Choose anew where the engine for this size is eager PyTorch, or `whatever` it is."""
        if size in self._choices and (whatever or self._choices[size].name == EAGER):
            del self._choices[size]

    def at(self, size: int) -> EngineChoice | None:
        """What was chosen for this size; None where nothing was."""
        return self._choices.get(size)

    def keep(self, size: int, choice: EngineChoice) -> None:
        """This is chosen for a size from now on."""
        self._choices[size] = choice

    def expected(self, size: int) -> EngineChoice | None:
        """What was chosen for this size, else for the latest other size; None before the first race."""
        latest = next(reversed(self._choices.values()), None)
        return self._choices.get(size, latest)

    def name_at(self, size: int) -> str | None:
        """Name of the engine that is chosen, to be expected or preferred for this size; None where there is none."""
        if size not in self._choices and size in self._preferred:
            return self._preferred[size]
        choice = self.expected(size)
        return choice.name if choice else None

    def rest(self) -> None:
        """Give back the memory of the engines, but not what was chosen: each is built anew when it is next needed."""
        self._choices = {
            size: choice if choice.name == EAGER else replace(choice, engine=None)
            for size, choice in self._choices.items()
        }

    def choose(
        self, race_input: RaceInput, n_images: int, budget: TimeBudget, engines: Mapping[str, EngineSpec]
    ) -> EngineChoice:
        """The engine for the size of the race: the preferred one, the clear winner at another size, or the winner. On
        a device that starts cold, the first call at a size counts as building it, since it is made in every
        process."""
        elapsed, start_s = stopwatch(), 0.0
        if starts_cold(race_input.device):
            self._eager(race_input.to_check)
            start_s = elapsed()
        try:
            choice = self._choose(race_input, n_images, budget, engines)
        finally:
            to_onnx.cache_clear()  # or the network would live on
        return replace(choice, build_s=choice.build_s + start_s)

    def _choose(
        self, race_input: RaceInput, n_images: int, budget: TimeBudget, engines: Mapping[str, EngineSpec]
    ) -> EngineChoice:
        if self._usual is not None:
            usual = self._usual if n_images >= WORTH_BUILDING else EAGER
            return self._build(self._preferred.get(race_input.px, usual), race_input, engines)
        raced = next((choice for choice in reversed(self._choices.values()) if choice.image_s), None)
        worth = raced is not None and raced.clear and n_images >= WORTH_BUILDING
        if raced is not None and worth and budget.fits(raced.build_s):
            return self._build(raced.name, race_input, engines)
        return Race(race_input, self._eager, n_images=n_images, budget=budget, earlier=raced).run(engines)

    def _build(self, name: str, race_input: RaceInput, engines: Mapping[str, EngineSpec]) -> EngineChoice:
        """This engine, or what stands in for it where it cannot be used."""
        elapsed, notes = stopwatch(), dict[str, str]()
        while name in engines and name != EAGER and race_input.device in engines[name].devices:
            few = self._choices or engines[name].precision == "float32"  # else as thorough as a race
            images = race_input.to_check if few else race_input.images
            engine = build_checked(engines[name], race_input, self._eager(images))
            if not isinstance(engine, str):
                return EngineChoice(name, engine, elapsed(), {}, notes)
            notes[name] = engine
            name = engines[name].instead or EAGER
        return EngineChoice(EAGER, self._eager, 0.0, {}, notes)

    def wake(self, size: int, make_input: Callable[[], RaceInput]) -> Engine:
        """The engine for a size, built anew after a rest, and checked on some images; eager where none was chosen."""
        choice = self._choices.get(size)
        if choice is not None and choice.engine is None:
            try:
                built = self._build(choice.name, make_input(), ENGINES)
            finally:
                to_onnx.cache_clear()
            choice = replace(choice, engine=built.engine) if built.name == choice.name else built
            self._choices[size] = choice
        return (choice.engine if choice else None) or self._eager

    def run(self, batch: torch.Tensor, make_input: Callable[[], RaceInput]) -> torch.Tensor:
        """What the engine for the size of a batch gives; one that fails in use is given up for eager. Errors of
        memory as they come."""
        size = batch.shape[-1]
        choice = self._choices.get(size)
        if choice is None or choice.name == EAGER:
            return self._eager(batch)
        engine = choice.engine or self.wake(size, make_input)
        try:
            return engine(batch)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._report(f"engine {choice.name} of {self._name}@{size} failed ({error}); eager from here on")
            self._choices[size] = EngineChoice(EAGER, self._eager, 0.0, {}, {choice.name: "failed in use"})
        return self._eager(batch)
