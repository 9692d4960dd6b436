"""How a command ends: errors in one line on stderr, with the exit codes of the command line."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

import typer

from stepcredit.errors import StepCreditError

Parameters = ParamSpec("Parameters")
REFUSED, INTERRUPTED, BROKEN_PIPE = 1, 130, 141


def told_in_one_line(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """The command, with every error of ours as one line on stderr and exit code 1.

    Ctrl-C ends with 130 and a reader that went away with 141, both without a word.
    """

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except StepCreditError as error:
            say(str(error))
            raise typer.Exit(REFUSED) from None
        except MemoryError:
            say("out of memory: a group is held in memory as a whole")
            raise typer.Exit(REFUSED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            silence_output()
            raise typer.Exit(BROKEN_PIPE) from None
        except OSError as error:
            silence_output()
            place = error.filename or "standard output"
            say(f"{place}: {(error.strerror or str(error)).lower()}")
            raise typer.Exit(REFUSED) from None

    return run


def silence_output() -> None:
    """What is still buffered goes nowhere, instead of failing once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """One line on stderr, whatever characters a file's names hold."""
    sys.stderr.write(printable(line) + "\n")


def printable(text: str) -> str:
    """The text on one line, with nothing in it that a terminal would obey or can't encode.

    Example:
        >>> print(printable("a\\n\\x1b[31m\\ud800"))
        a\\n\\x1b[31m\\ud800
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
