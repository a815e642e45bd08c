"""What all commands do alike where something goes wrong: one line on stderr, and the exit status."""

from __future__ import annotations

import difflib
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from autometa.core.errors import ArtifactError, AutometaError, ConfigError, DataError
from ingestion.errors import MOUNT, IngestionError, InputError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""Exit statuses: the work failed or a problem was found; arguments or input are bad; Ctrl-C or SIGTERM."""


class Failure(click.ClickException):
    """The work failed: one line on stderr, and the exit status."""

    exit_code = FAILED

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class BadInput(Failure):
    """Arguments or input are bad."""

    exit_code = BAD_INPUT


class Interrupted(Failure):
    """Somebody ended the program."""

    exit_code = INTERRUPTED


@contextmanager
def one_line() -> Iterator[None]:
    """Turn what is raised on purpose, and interrupts, into a line and the exit status of the program."""
    try:
        yield
    except (ConfigError, ArtifactError, DataError, InputError) as error:
        raise BadInput(str(error)) from error
    except (AutometaError, IngestionError) as error:
        raise Failure(str(error)) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # click ends in silence
            raise
        raise Failure(told_of(error)) from error
    except ModuleNotFoundError as error:
        raise Failure(f"the module `{error.name}` is not installed; run: autometa doctor") from error
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted") from error


def told_of(error: OSError) -> str:
    """A failure of the system in one line: the file, the reason, and what helps."""
    file = f"{error.filename}: " if error.filename else ""
    remedies = {
        errno.ENOSPC: "free space there, or name another folder",
        errno.EDQUOT: "free space there, or name another folder",
        errno.EROFS: "name another folder",
        errno.EACCES: "allow it, or name another folder",
        errno.ENAMETOOLONG: "name a folder with a shorter path",
        errno.EMFILE: "allow more open files: ulimit -n 4096",
        errno.EIO: "the disk may be broken: name a folder on another one",
    }
    missing = str(error.filename).startswith("/proc/")
    remedy = MOUNT if missing else remedies.get(error.errno or 0, "run: autometa doctor")
    return f"{file}{error.strerror or error}; {remedy}"


class Command(click.Command):
    """A command that ends with one line where it fails on purpose, however it is started."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; click shows the exceptions of its own that this raises."""
        with one_line():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands, which knows what somebody may have meant."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        """As for a command; importing a subcommand may fail or be interrupted, too. Threads of PyTorch, which is
        imported later, keep no core busy while they wait, so that other programs slow them less."""
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
        with one_line():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name. UsageError says which one may be meant, else which there are."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            names = self.list_commands(ctx)
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"did you mean `{close[0]}`?" if close else f"commands: {', '.join(names)}"
            raise click.UsageError(f"no command `{name}`; {hint}", ctx)
        return super().resolve_command(ctx, args)


Group.group_class = Group
