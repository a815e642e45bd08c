"""What can go wrong in autometa, as one tree.

AutometaError
├── ConfigError        a setting is unknown, mistyped or out of range
├── WeightsError       pretrained weights can not be had here
├── BudgetExhausted    a step was begun although time or memory was used up
├── ArtifactError      a saved learner is missing, damaged or of another version
├── DataError          images or labels do not have the form that they must have
├── Diverged           the loss of a training is no number any more, and nothing better was found before
└── BrokenEnvironment  the installed packages do not fit together
"""


class AutometaError(Exception):
    """Root of everything that autometa raises on purpose."""


class ConfigError(AutometaError):
    """A setting is unknown, mistyped or out of range; the message names it, its value and the mend."""


class WeightsError(AutometaError):
    """Pretrained weights can not be had here; the message says which package or cache would hold them."""


class BudgetExhausted(AutometaError):
    """A step was begun although time or memory was used up."""


class ArtifactError(AutometaError):
    """A saved learner is missing, damaged or of another version."""


class DataError(AutometaError):
    """Images or labels do not have the form that they must have."""


class Diverged(AutometaError):
    """The loss of a training is no number any more, and nothing better than the start was found before."""


class BrokenEnvironment(AutometaError):
    """The installed packages do not fit together; the message is one line with the mend."""

    plain = True
    """Ingestion shows such an error without its traceback."""
