"""Rows of results, which benchmarks print, save and put into tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Report:
    """Prints rows as they come and saves them to a file, if there is one."""

    def __init__(self, file: Path | None, settings: str, *, resume: bool) -> None:
        self.rows: list[Row] = []
        self._file, self._settings = file, settings
        if resume and file is not None and file.exists():
            self.rows = json.loads(file.read_text(encoding="utf-8"))
            if other := {row["settings"] for row in self.rows} - {self._settings}:
                raise SystemExit(f"{file}: measured with {other.pop()}, not with {self._settings}")
        self.names = {row["name"] for row in self.rows}

    def add(self, rows: Sequence[Row]) -> None:
        """Rows of one unit."""
        for row in rows:
            reference, ratio, width = row["reference"], row["ratio"], row.get("ci95")
            line = f"{row['name']:<64} {row['value']:>9.4g} {row['unit']}"
            line += "" if width is None else f" ± {width:.2g}"
            against = "" if reference is None else f"  (reference {reference:.4g}"
            against += f", ratio {ratio:.4g})" if ratio is not None else ")" if against else ""
            print(f"{line}{against}  {row.get('note', '')}", flush=True)
            self.names.add(row["name"])
            self.rows.append(row | {"settings": self._settings})
        if self._file is not None:
            writing = self._file.with_name(f".{self._file.name}")
            writing.write_text(json.dumps(self.rows, indent=1), encoding="utf-8")
            writing.replace(self._file)

    def markdown(self, overrides: Mapping[str, Any]) -> str:
        """Tables: datasets as columns, untrained → trained for every learner and encoder; `overrides` are the
        fields of recipes of learners that differ."""
        cells: dict[tuple[str, str], dict[str, str]] = {}
        datasets, found = [], {row["name"]: row for row in self.rows}
        for name, row in found.items():
            if not name.endswith("/trained"):
                continue
            _, learner, dataset, *encoder = name.split("/")[:-1]
            datasets += [dataset] if dataset not in datasets else []
            cell = f"{row['reference']:.1f} → {row['value']:.1f} ± {row['ci95']:.1f}"
            cells.setdefault((learner, "/".join(encoder) or "conv4"), {})[dataset] = cell
        lines = [f"| Learner | Encoder | {' | '.join(datasets)} |", "|---" * (2 + len(datasets)) + "|"]
        for (learner, encoder), of in sorted(cells.items(), key=lambda item: item[0][1]):
            lines.append(f"| `{learner}` | {encoder} | {' | '.join(of.get(d, '') for d in datasets)} |")
        lines += ["", f"Normalised accuracy in % before → after training; {self._settings}."]
        lines += [f"`{learner}`: {json.dumps(fields)}." for learner, fields in overrides.items()]
        others = [row for row in self.rows if row["name"].endswith(("/reference", "_loader"))]
        lines += [
            f"- `{r['name']}`: {r['value']:.4g} {r['unit']}, reference {r['reference']:.4g}; {r['note']}."
            for r in others
        ]
        return "\n".join(lines) + "\n"


def row(name: str, value: float, unit: str, reference: float | None = None, **more: Any) -> Row:
    """A result; its ratio is to the reference, if that is above zero."""
    ratio = value / reference if reference is not None and reference > 0 else None
    return {"name": name, "value": value, "unit": unit, "reference": reference, "ratio": ratio} | more
