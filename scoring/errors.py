"""The exception tree of the scoring program.

ScoringError                 what a user can mend; the command prints it and exits with status 1
├── InputError               the results folder can not be used
├── TruthError               the ground truth is absent, malformed, or could not be drawn again
├── OutputError              the output folder must not be, or can not be, replaced
├── UnreadableFileError      one file is refused: a link, not a regular file, too large
└── PredictionError          one prediction file is wrong: costs its task, never the scoring
"""


class ScoringError(Exception):
    """Root of every expected error of this package."""


class InputError(ScoringError):
    """The results folder can not be used."""


class TruthError(ScoringError):
    """The ground truth is absent, malformed, or could not be drawn again."""


class OutputError(ScoringError):
    """The output folder must not be, or can not be, replaced."""


class UnreadableFileError(ScoringError):
    """One file is refused: a link, not a regular file, too large, or closed to us."""


class PredictionError(ScoringError):
    """One prediction file does not hold what its task asks for."""
