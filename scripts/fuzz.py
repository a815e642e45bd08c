"""Look for bytes that a reader of untrusted files cannot stand, guided by the code that they reach.

    python scripts/fuzz.py TARGET [--seconds N] [--corpus DIR]
    python scripts/fuzz.py TARGET --replay FILE

Needs `pip install -e '.[fuzz]'`, but for `--replay`. Where an input is found, its file is named and the exit status
is not 0: repair the reader, and add the input to the tests.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path

NAMES = ("predictions", "table", "splits", "frames", "image", "archive", "model", "record")
LONGEST_S = 10
"""Seconds that one input may take."""
MOST_MB = 2048


def main(arguments: list[str]) -> None:
    """Fuzz one target; ends the process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=int, default=60, help="how long, about; 60 by default")
    parser.add_argument("--seed", type=int, default=1, help="of the changes to inputs; 1 by default")
    parser.add_argument(
        "--corpus",
        type=Path,
        help="folder that keeps inputs for the next time; by default among temporary files",
    )
    parser.add_argument("--replay", type=Path, help="check only this file")
    given = parser.parse_args(arguments)
    if given.replay is not None:
        from _fuzz_targets import TARGETS, run_target  # noqa: PLC0415

        run_target(TARGETS[given.target], given.replay.read_bytes())
        print(f"{given.replay}: nothing was found")
        return
    corpus = given.corpus or Path(tempfile.gettempdir()) / f"autometa-corpus-{given.target}"
    fuzz(given.target, given.seconds, given.seed, corpus)


def fuzz(name: str, seconds: int, seed: int, corpus: Path) -> None:
    """Run the fuzzer; it ends the process, with status 0 where nothing was found."""
    try:
        import atheris  # noqa: PLC0415 - optional
    except ModuleNotFoundError:
        sys.exit("atheris is missing; run: pip install -e '.[fuzz]'")
    with atheris.instrument_imports(include=["ingestion", "scoring"]):
        from _fuzz_targets import TARGETS, run_target  # noqa: PLC0415
    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for data in target.seeds:
        (corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    found = Path(tempfile.gettempdir()) / f"autometa-fuzz-{name}-"
    print(
        f"what is found lies in {found}*; look at it with: scripts/fuzz.py {name} --replay FILE", flush=True
    )
    limits = f"-timeout={LONGEST_S} -rss_limit_mb={MOST_MB}"
    options = f"-max_total_time={seconds} -seed={seed} {limits} -print_final_stats=1"
    atheris.Setup(
        [sys.argv[0], *options.split(), f"-artifact_prefix={found}", str(corpus)],
        lambda data: run_target(target, data),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
