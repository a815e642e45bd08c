"""The errors of ingestion, as one tree.

IngestionError
├── InputError        an input is wrong: an option, a dataset or a bundle (exit status 2)
│   └── NoImageError  none of the images of a dataset can be read
└── SubmissionError   the code of the submission failed: it crashed, hung or broke the protocol
"""

from ingestion.shown import one_line, show

MOUNT = "mount it: mount -t proc proc /proc"
"""What helps where Linux shows no processes."""


class IngestionError(Exception):
    """Root of everything that ingestion raises on purpose."""


class InputError(IngestionError):
    """A bad option, dataset or bundle; the message names it, the value and the fix, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(show(message))


class NoImageError(InputError):
    """None of the images can be read. `broken`: a line for each, with its file and the reason."""

    def __init__(self, message: str, broken: tuple[str, ...]) -> None:
        super().__init__(message)
        self.broken = broken


class SubmissionError(IngestionError):
    """The submission failed. `reason` becomes one line, whatever the submission has put into it; `traceback` is that
    of the submission, or empty if it raised nothing; `fatal`: its process cannot be used any more."""

    def __init__(self, reason: str, traceback: str = "", *, fatal: bool = False) -> None:
        self.reason = one_line(reason)
        super().__init__(self.reason)
        self.traceback = traceback
        self.fatal = fatal
