"""The format of `stages.json`, checked field by field. Slow to import, so `stage_times` imports it only to read a
file."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

_MAX_STAGES = 100
_Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class StageRow(BaseModel):
    """One stage with its seconds and its result; other keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")

    stage: Annotated[str, Field(min_length=1, max_length=100)]
    predicted_s: _Seconds | None
    actual_s: _Seconds | None
    note: Annotated[str, Field(max_length=1000)] = ""
    began_s: _Seconds | None = None


_STAGES = TypeAdapter(Annotated[list[StageRow], Field(max_length=_MAX_STAGES)])


def parse_stages(data: bytes) -> list[StageRow]:
    """Check the text of a stages file; raises ValueError naming the first wrong field."""
    try:
        return _STAGES.validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{f'{where}: ' if where else ''}{first['msg']}") from None
