"""How far a search has come, as one line of a regular form: what a run reports, and what a display understands; and
how much of it is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass

QUIET, USUAL, VERBOSE = -1, 0, 1
"""How much work shows: its result and failures; stages, notes and status; every line, too."""
_FORM = re.compile(
    r"status: (?P<stage>[\w -]{1,40}), (?P<trials>\d{1,6}) trials?, "
    r"best score (?:unknown|(?P<score>-?\d{1,3}\.\d) % \(95 %: (?P<low>-?\d{1,3}\.\d) to (?P<high>-?\d{1,3}\.\d)\))$"
)


@dataclass(frozen=True)
class Progress:
    """The `stage` of a search (a word or two), `trials` so far, and the normalised accuracy that held-out classes
    promise for the learner that would serve now, with the ends of its 95 % interval; None: not measured."""

    stage: str
    trials: int
    score: float | None = None
    low: float = 0.0
    high: float = 0.0

    def line(self) -> str:
        """The line that a run reports; `parse` reads it, to a tenth of a percent."""
        plural = "" if self.trials == 1 else "s"
        return f"status: {self.stage}, {self.trials} trial{plural}, best score {self.percent() or 'unknown'}"

    def percent(self) -> str:
        """The score and its interval for people; "" where it is not measured."""
        if self.score is None:
            return ""
        return f"{100 * self.score:.1f} % (95 %: {100 * self.low:.1f} to {100 * self.high:.1f})"

    @classmethod
    def parse(cls, line: str) -> Progress | None:
        """What a line that ends in this form says, whatever time stands before it; None for any other line."""
        found = _FORM.search(line)
        if found is None:
            return None
        stage, trials = found["stage"], int(found["trials"])
        if found["score"] is None:
            return cls(stage, trials)
        return cls(stage, trials, *(float(found[name]) / 100 for name in ("score", "low", "high")))
