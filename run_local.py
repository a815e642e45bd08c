"""Run a submission on a dataset as a challenge would: ingestion, then scoring, then a table of scores.

python run_local.py --dataset DIR --time-budget 10m --memory-budget 4GB

It is the command `autometa run`; an installed copy has it as `python -m run_local`, too.
"""

from autometa.bundles.shipped import BASELINES, DEMO, ROOT
from autometa.cli.run import read_options
from autometa.cli.run import run as main
from autometa.cli.run_setup import claim_output, find_submission, ingestion_settings

__all__ = [
    "BASELINES",
    "DEMO",
    "ROOT",
    "claim_output",
    "find_submission",
    "ingestion_settings",
    "main",
    "read_options",
]

if __name__ == "__main__":
    main()
