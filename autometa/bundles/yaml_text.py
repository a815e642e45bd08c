"""YAML for people, with every text in quotes: an unquoted date is no text to Codabench."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def yaml_text(values: dict[str, Any]) -> str:
    """A mapping as YAML: strings as in JSON, lists and mappings indented."""
    return "\n".join(_mapping(values, "")) + "\n"


def _mapping(values: dict[str, Any], indent: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{key}:"
            yield from _mapping(value, f"{indent}  ")
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            yield f"{indent}{key}:"
            for each in value:
                first, *rest = _mapping(each, f"{indent}    ")
                yield f"{indent}  - {first.strip()}"
                yield from rest
        else:
            yield f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}"
