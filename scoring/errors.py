"""The exception tree of the scoring program.

ScoringError                 what a user can fix; the command prints it and exits with status 1
├── InputError               the results folder cannot be used
├── TruthError               the ground truth is missing or malformed, or could not be drawn again
├── OutputError              the output folder must not or cannot be replaced
├── UnreadableFileError      one file is refused: a link, not a regular file, too large
└── PredictionError          one prediction file is wrong: its task scores as chance, and scoring goes on
"""


class ScoringError(Exception):
    """Root of every expected error of this package."""


class InputError(ScoringError):
    """The results folder cannot be used."""


class TruthError(ScoringError):
    """The ground truth is missing or malformed, or could not be drawn again."""


class OutputError(ScoringError):
    """The output folder must not or cannot be replaced."""


class UnreadableFileError(ScoringError):
    """One file is refused: it is a link, no regular file, too large, or not readable."""


class PredictionError(ScoringError):
    """One prediction file does not have the form that its task needs."""
