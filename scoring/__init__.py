"""Scoring program of the Cross-Domain MetaDL format: predictions and truth in, scores and a report out.

From Python: `score(ScoringSettings(results_dir=..., output_dir_scoring=...))`; as a command:
`python -m scoring --help`.
"""

from scoring.errors import ScoringError
from scoring.program import score
from scoring.settings import GroupScore, ScoreSummary, ScoringSettings

__all__ = ["GroupScore", "ScoreSummary", "ScoringError", "ScoringSettings", "score"]
