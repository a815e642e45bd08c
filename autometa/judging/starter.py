"""The program of a run of a judging: `autometa run`, which the kernel ends when the judge ends, however it does.

    python autometa/judging/starter.py PID OPTIONS...

PID: of the judge. A run that outlived a killed judge would go on beside the one that follows it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Run what the options ask for; exit status 1 where the judge has ended already."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    judge = int(sys.argv.pop(1))
    from ingestion.process_tree import die_with_parent  # noqa: PLC0415 - is found from here on

    die_with_parent()
    if os.getppid() != judge:
        sys.exit("the judge has ended")
    from run_local import main as run  # noqa: PLC0415 - slow to import

    run()


if __name__ == "__main__":
    main()
