"""What commands print as JSON about a run and its scores."""

from __future__ import annotations

from dataclasses import asdict

from autometa.core.options import RunOptions
from ingestion import IngestionResult
from scoring import GroupScore, ScoreSummary


def scores_record(summary: ScoreSummary) -> dict[str, object]:
    """Scores; accuracies are normalised, 0 is chance and 1 is perfect."""
    return {
        "overall": _group_record(summary.overall),
        "datasets": [_group_record(group) for group in summary.datasets],
        "notes": list(summary.notes),
        "report": str(summary.report),
    }


def run_record(result: IngestionResult, options: RunOptions) -> dict[str, object]:
    """How a run went."""
    return {
        "succeeded": result.succeeded,
        "interrupted": result.interrupted,
        "seconds": result.seconds,
        "time_budget_s": options.time_budget,
        "ingestion": str(result.output_dir),
    }


def _group_record(group: GroupScore) -> dict[str, object]:
    return {
        "name": group.name,
        "normalised_accuracy": group.mean,
        "ci95": group.ci95,
        "tasks": group.tasks,
        "missing": group.missing,
        "metrics": {name: asdict(estimate) for name, estimate in group.metrics.items()},
    }
