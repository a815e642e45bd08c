"""Make the table from which costs of backbones are predicted, `autometa/backbones/costs.json`.

    python scripts/count_costs.py [--backbone NAME ...] [--fit FILE] [--out FILE]

For every row of the catalogue it counts, without computing anything, what one image takes at two sizes:
multiply-adds (those of convolutions in groups apart), bytes that operations write, the most bytes that live at a
time, operations.
`--fit FILE` instead takes what `benchmarks/zoo.py --json FILE` has measured and fits the constants of each engine:
few numbers for all rows, so that no row is predicted from its own figures alone. It tells how good predictions are
for rows that the constants were not fitted to.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import _fit_costs as fitting
from _backbone_counts import count

from autometa.backbones import CATALOGUE, find_spec, kind_of
from autometa.backbones.engines import onnx_runtime, openvino

OUT = Path(__file__).resolve().parents[1] / "autometa" / "backbones" / "costs.json"
SIZES = (112, 224)
CHUNKS = {"openvino": openvino.CHUNK, "onnxruntime": onnx_runtime.CHUNK}
"""Images that an engine has in memory at a time; those that are not named have the whole batch."""


def count_row(name: str) -> dict[str, list[float]]:
    """Figures of a row at both sizes, rounded down to multiples of its patch."""
    spec = find_spec(name)
    sizes = [max(px // spec.patch_px, 1) * spec.patch_px for px in SIZES]
    counted = [count(spec, px) for px in sizes]
    figures = {key: [float(f"{one[key]:.4g}") for one in counted] for key in counted[0]}
    return {"px": [float(px) for px in sizes], **figures}


def fit(table: dict[str, Any], file: Path) -> None:
    """Put the constants of each engine that was measured into the table; engines that serve no row of a kind are
    named there."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    found = fitting.read(rows)
    for engine, of in found.items():
        ratios = fitting.left_out_errors(of)
        print(f"{engine}: seconds of rows that were left out: {fitting.describe(ratios)}", flush=True)
        served = {kind_of(one.name) for one in of}
        tried = {kind_of(row["backbone"]) for row in rows if row.get("engine") == engine}
        table["engines"][engine] = fitting.fit_seconds(of) | {
            "bytes": fitting.fit_bytes(of, CHUNKS.get(engine, 0)),
            "refused": sorted(tried - served),
        }


def write(table: dict[str, Any], out: Path) -> None:
    """The table, a row a line."""
    rows = ",\n".join(f'"{name}": {json.dumps(row)}' for name, row in table["counts"].items())
    engines = ",\n".join(f'"{name}": {json.dumps(row)}' for name, row in table["engines"].items())
    out.write_text(f'{{"engines": {{\n{engines}\n}},\n"counts": {{\n{rows}\n}}}}\n', encoding="utf-8")


def main() -> None:
    """Count or fit, and write the table."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--backbone", nargs="+", metavar="NAME", help="all of the catalogue by default")
    parser.add_argument("--fit", type=Path, metavar="FILE", help="fit the constants of engines instead")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    table = (
        json.loads(asked.out.read_text(encoding="utf-8"))
        if asked.out.exists()
        else {"engines": {}, "counts": {}}
    )
    if asked.fit is not None:
        fit(table, asked.fit)
    for name in [] if asked.fit is not None else asked.backbone or CATALOGUE:
        table["counts"][name] = count_row(name)
        print(f"{name:<46} {table['counts'][name]}", flush=True)
    write(table, asked.out)


if __name__ == "__main__":
    main()
