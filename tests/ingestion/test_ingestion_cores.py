"""What a submission is told of the processors that it may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestion import access
from ingestion.contract import Limits, TestSpec, contract_variables

SPEC = TestSpec(4, 1, 10, 20, (2, 5), (1, 5), 3, 32, "within-domain", False)


@pytest.mark.parametrize(
    ("quota", "told", "threads"), [(None, None, None), (2.5, None, "3"), (2.5, "1", "1")]
)
def test_threads_of_a_submission_keep_to_the_quota(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quota: float | None,
    told: str | None,
    threads: str | None,
) -> None:
    monkeypatch.setattr(access, "cpu_quota", lambda: quota)
    monkeypatch.setattr(access, "count_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert access.child_environment(tmp_path, {}).get("OMP_NUM_THREADS") == threads


def test_the_contract_names_the_cores(tmp_path: Path) -> None:
    limits = Limits(None, None, None, None, None, cores=3)
    assert contract_variables(limits, tmp_path, SPEC)["METADL_CORES"] == "3"
