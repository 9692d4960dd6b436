"""How a command ends: errors in one line on stderr, with the exit codes of the command line."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TextIO, TypeVar

import typer

from stepcredit.cli.standard_streams import rows_apart
from stepcredit.errors import RowError, StepCreditError
from stepcredit.handles import reason_of

Parameters = ParamSpec("Parameters")
Command = TypeVar("Command", bound=Callable[..., Any])
REFUSED, FOUND, INTERNAL, INTERRUPTED, BROKEN_PIPE = 1, 3, 70, 130, 141
"""Exit codes. `FOUND`: a command did its work and found what it was asked to fail on."""
TRACEBACK = "STEPCREDIT_TRACEBACK"
"""Environment variable: if it is set, the traceback of an unexpected error is printed too."""


def errors_to_stderr(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """The command, with every error as one line on stderr.

    The exit code is 1 for stepcredit's own errors and for errors in the user's code, and 70 for a
    bug in stepcredit. A stop signal gives 128 + its number (Ctrl-C: 130), and a broken pipe gives
    141; both print nothing.
    """

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            with rows_apart(kwargs.get("output")):
                command(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except BaseException as error:  # each kind has its line and its exit code
            raise typer.Exit(report_error(error)) from None

    return run


class CommandApp(typer.Typer):
    """A typer app in which every error of a command is one line on stderr.

    Args:
        settings: typer's own.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(add_completion=False, pretty_exceptions_enable=False, **settings)

    def command(self, *args: Any, **settings: Any) -> Callable[[Command], Command]:
        """Add a command; `errors_to_stderr` says how it ends."""
        add = super().command(*args, **settings)

        def register(command: Command) -> Command:
            add(errors_to_stderr(command))
            return command

        return register


def report_error(error: BaseException) -> int:
    """Print in one line why a command ends, and return its exit code."""
    code = _exit_code(error)
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()
    return code


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return code_of(error)
    if isinstance(error, BrokenPipeError) and error.filename is not None:
        return BROKEN_PIPE
    if isinstance(error, StepCreditError):
        return refuse(f"{error}{_kind_hint(error)}")
    if isinstance(error, MemoryError):
        return refuse("out of memory: a group is held in memory as a whole")
    if isinstance(error, OSError) and error.filename is not None:
        return refuse(f"{os.fsdecode(error.filename)}: {reason_of(error)}")
    return _report_unexpected(error)


_NO_ROWS = ("is not JSON", "is not UTF-8", "holds a NUL byte", "expected an object, got [")
"""How reasons begin that a file of another kind gives."""


def _kind_hint(error: StepCreditError) -> str:
    """What a file looks like that is no file of rollouts, and which command reads it."""
    if not isinstance(error, RowError):
        return ""
    no_group = (error.field, error.reason) == ("group", "missing")
    if not (no_group or error.reason.startswith(_NO_ROWS)):
        return ""
    from stepcredit.logs.log_formats import kind_of_file

    kind = kind_of_file(error.path)
    return "" if kind is None else f"; it {kind}"


def _report_unexpected(error: BaseException) -> int:
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    from stepcredit.cli.blame import place_in_own_code  # lists the installed packages: slow

    place = place_in_own_code(error)
    if isinstance(error, SystemExit):
        return refuse(
            f"{place or 'a library'}: called sys.exit({error.code!r}) before the command was done"
        )
    what = " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())
    if place is not None:
        return refuse(f"{place}: {what}; {TRACEBACK}=1 shows how it was reached")
    if isinstance(error, OSError):  # the system's error about a file that it doesn't name
        return refuse(f"{what}; {TRACEBACK}=1 shows where")
    say(f"internal error: {what}; run with {TRACEBACK}=1 to see where, and please report it")
    return INTERNAL


def refuse(line: str) -> int:
    """Print the reason, and return the exit code of a refusal."""
    say(line)
    return REFUSED


def code_of(stop: KeyboardInterrupt) -> int:
    """The exit code of a command that a signal ended."""
    return int(getattr(stop, "code", INTERRUPTED))


def discard_output(stream: TextIO | None = None) -> None:
    """Discard what a stream has buffered, so that writing it does not fail again at exit.

    Args:
        stream: None is standard output.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), (stream or sys.stdout).fileno())


def say(line: str) -> None:
    """Print one line on stderr, whatever characters it holds; do nothing if stderr is closed."""
    with suppress(ValueError):
        try:
            sys.stderr.write(printable(line) + "\n")
            sys.stderr.flush()
        except OSError:
            discard_output(sys.stderr)


def printable(text: str) -> str:
    """The text on one line; control characters and those that can't be encoded are escaped.

    Example:
        >>> print(printable("a\\n\\x1b[31m\\ud800"))
        a\\n\\x1b[31m\\ud800
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
