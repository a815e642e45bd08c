"""What can go wrong in ingestion, as one tree.

IngestionError
├── InputError        the operator's input is at fault: an option, a dataset, a bundle (exit status 2)
└── SubmissionError   the submission's own code is at fault: it crashed, hung or broke the protocol
"""


class IngestionError(Exception):
    """Root of everything that ingestion raises on purpose."""


class InputError(IngestionError):
    """A bad option, dataset or bundle; the message names it, the value and the mend."""


class SubmissionError(IngestionError):
    """The submission failed; `reason` is one line, `traceback` is the submission's own, or empty where it
    raised nothing. `fatal`: its process can not be used any more."""

    def __init__(self, reason: str, traceback: str = "", *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.traceback = traceback
        self.fatal = fatal
