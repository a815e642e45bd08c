"""How the images of a dataset are prepared, so that whoever uses a learner later prepares others in the same way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ingestion.errors import InputError

WHITE = 255
Shape = Literal["squeeze", "pad", "crop"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True)
class Preparation:
    """`px`: side of the square. `grey_low`, `grey_high`: the values of deep grey images (16 or 32 bits, floating
    point) that become black and white; None: those of 16 bits, and floating point is refused. `ground`: the grey, 0
    to 255, that is put under transparent parts. `shape`: how an image that is not square becomes so: it is squeezed,
    gets bars beside it (`pad`), or loses what is beside its middle (`crop`). The defaults are those of the format."""

    px: int
    grey_low: float | None = None
    grey_high: float | None = None
    ground: int = WHITE
    shape: Shape = "squeeze"

    def __post_init__(self) -> None:
        if (self.grey_low is None) != (self.grey_high is None):
            raise ValueError("grey_low and grey_high go together: give both or none")
        if self.grey_low is not None and self.grey_high is not None and not self.grey_low < self.grey_high:
            raise ValueError(f"grey_low = {self.grey_low} must be below grey_high = {self.grey_high}")
        if not 0 <= self.ground <= WHITE:
            raise ValueError(f"ground = {self.ground}: give a grey from 0 to 255")
        if self.shape not in SHAPES:
            raise ValueError(f"shape = {self.shape!r}: one of {', '.join(SHAPES)}")

    @classmethod
    def of(cls, px: int | Preparation) -> Preparation:
        """A preparation as it is, or the usual one at a number of pixels."""
        return px if isinstance(px, Preparation) else cls(px)

    @classmethod
    def from_json(cls, content: object) -> Preparation:
        """What `to_json` gave. InputError if it is something else."""
        try:
            if not isinstance(content, dict):
                raise TypeError("it is not an object")
            made = cls(**content)
            if not (_is_number(made.px, whole=True) and _is_number(made.ground, whole=True) and made.px > 0):
                raise TypeError("px and ground must be whole numbers")
            if made.grey_low is not None and not (_is_number(made.grey_low) and _is_number(made.grey_high)):
                raise TypeError("grey_low and grey_high must be numbers")
        except (TypeError, ValueError) as error:
            raise InputError(f"preparation of images {content!r}: cannot be used ({error})") from error
        return made

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def key(self) -> str:
        """What distinguishes decoded images in the cache."""
        if self == Preparation(self.px):
            return str(self.px)
        shape = "" if self.shape == "squeeze" else f":{self.shape}"
        return f"{self.px}:{self.grey_low}:{self.grey_high}:{self.ground}{shape}"


def common_preparation(px: int, preparations: Iterable[Preparation]) -> Preparation:
    """What images of a new dataset should get: what all of these have in common, and the usual for the rest."""
    all_of_them = list(preparations)
    common = Preparation(px)
    if len({(p.grey_low, p.grey_high) for p in all_of_them}) == 1:
        common = replace(common, grey_low=all_of_them[0].grey_low, grey_high=all_of_them[0].grey_high)
    if len({p.ground for p in all_of_them}) == 1:
        common = replace(common, ground=all_of_them[0].ground)
    if len({p.shape for p in all_of_them}) == 1:
        common = replace(common, shape=all_of_them[0].shape)
    return common


def _is_number(value: object, *, whole: bool = False) -> bool:
    return isinstance(value, int if whole else int | float) and not isinstance(value, bool)
