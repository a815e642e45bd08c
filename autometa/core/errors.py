"""The errors that autometa raises on purpose, as one tree.

AutometaError
├── ConfigError        a setting is unknown, of the wrong type or out of range
│   └── UnmetLimit     nothing that could be made here keeps a limit
├── WeightsError       pretrained weights are unavailable on this machine
├── BudgetExhausted    no time or memory is left for a step
│   └── TooLittleMemory    the memory that a step takes is not there
├── ArtifactError      a saved learner is missing, damaged or of another version
├── UnwritableFile     a file cannot be written: the disk is full, read-only or broken (an OSError, too)
├── DataError          images or labels do not have the required form
├── Diverged           the loss of a training became NaN or infinite before anything was learned
├── LostTraining       a training on another machine has ended without a result
└── BrokenEnvironment  the installed packages do not fit together
"""

from pathlib import Path


class AutometaError(Exception):
    """Root of everything that autometa raises on purpose."""


class ConfigError(AutometaError):
    """A setting is unknown, of the wrong type or out of range. The message names it, its value and the fix."""


class UnmetLimit(ConfigError):
    """Nothing that could be made on this machine keeps a limit. The message is one line: the limit, what the cheapest
    takes, and the fix."""

    plain = True
    """Tells ingestion to show this error without its traceback."""


class WeightsError(AutometaError):
    """Pretrained weights are unavailable on this machine. The message names the package or cache that would have
    them."""


class BudgetExhausted(AutometaError):
    """No time or memory is left for a step."""


class TooLittleMemory(BudgetExhausted):
    """The memory that a step takes is not there, as was predicted before it began or found when it ran. The message
    has the figures that are known."""


class ArtifactError(AutometaError):
    """A saved learner is missing, damaged or of another version."""


class UnwritableFile(AutometaError, OSError):
    """A file cannot be written. The message is one line: the file, the reason and the fix."""

    plain = True
    """Tells ingestion to show this error without its traceback."""

    def __init__(self, file: Path, reason: Exception) -> None:
        why = getattr(reason, "strerror", None) or str(reason)
        super().__init__(getattr(reason, "errno", None), why)
        self.line = f"{file}: cannot be written ({why}); free space there, or name another folder"

    def __str__(self) -> str:
        return self.line


class DataError(AutometaError):
    """Images or labels do not have the required form."""


class Diverged(AutometaError):
    """The loss of a training became NaN or infinite before the learner was better than at the start."""


class LostTraining(AutometaError):
    """A training on another machine has ended without a result. The message has the reason."""


FAILURES = (
    AutometaError, ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, ValueError
)  # fmt: skip
"""What a step may raise that a run can do without: it goes on with what it has. Errors of linear algebra and of GPU
memory are among them, as RuntimeError or ValueError."""


def describe(failure: BaseException) -> str:
    """A failure in one line: errors of this tree say all in their message, others need the name of their type."""
    text = str(failure)
    return text if isinstance(failure, AutometaError) else f"{type(failure).__name__}: {text}"


class BrokenEnvironment(AutometaError):
    """The installed packages do not fit together. The message is one line, with the fix."""

    plain = True
    """Tells ingestion to show this error without its traceback."""
