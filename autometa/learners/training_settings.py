"""How a learner is trained, as validated settings."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Schedule = Literal["cosine", "linear", "steps", "constant"]


class TrainingSettings(BaseModel):
    """`meta_batch` episodes a step; `optimizer` with `learning_rate` (`classifier_rate`, where given, for a
    classifier that only training needs), and with `momentum` (or Nesterov's) for `sgd`. By its `schedule` the rate
    falls to zero at the end of the budget or at `max_steps`, along a `cosine` or a line (`linear`), or it stays
    `constant`, or it falls in `steps`: once each of the shares `drops` of the training is done, it is multiplied by
    the next of `drop_factors`, which may be one for all. Gradients clipped to length `clip` (None: as they are).
    Validation every `validate_every` steps, or as often as it takes a fixed share of the time; after `patience` of
    them without a better one, if these also took a fixed share of the steps or of the time, it goes back to the
    best state with 0.3 times the rate, and ends once that is below 1 %; it ends after some without a mistake, too.
    With `patience` None it ends with the budget or at `max_steps` only. A `repeatable` training counts steps where
    others look at the time: two of them on one machine end with the same bits, unless the budget ends one
    before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    meta_batch: int = Field(default=4, ge=1)
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    classifier_rate: float | None = Field(default=None, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False
    schedule: Schedule = "cosine"
    drops: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = ()
    drop_factors: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1,)
    clip: float | None = Field(default=5.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    validate_every: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=20, ge=1)
    repeatable: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_repeatable(self) -> Self:
        if self.repeatable and (self.max_steps is None or self.validate_every is None):
            raise ValueError("a repeatable training needs max_steps and validate_every")
        return self

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum: {self.momentum} is for optimizer: sgd; {self.optimizer} has its own")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum: give one, such as 0.9")
        if bool(self.drops) != (self.schedule == "steps"):
            raise ValueError(
                f"schedule: {self.schedule} with drops: {list(self.drops)}; steps, and no other, needs drops"
            )
        if len(self.drop_factors) not in (1, len(self.drops)):
            raise ValueError(
                f"{len(self.drop_factors)} drop_factors for {len(self.drops)} drops: give one, or as many"
            )
        return self
