"""`stepcredit audit --selftest`: planted faults, what finds them, and false alarms."""

from __future__ import annotations

import typer

from stepcredit.cli.output import FOUND, errors_to_stderr
from stepcredit.cli.progress import counting_bar
from stepcredit.requires import require

CLEAN_FILES = 50
"""Generated clean logs; `selftest_matrix(files=1000)` of Python takes minutes."""


def selftest_option(wanted: bool) -> None:
    """Run the self-test and end the command, where `--selftest` is given.

    Raises:
        Exit: with 0, or with 3 where a fault was missed or a clean log accused.
    """
    if wanted:
        print_selftest()
        raise typer.Exit(0)


@errors_to_stderr
def print_selftest() -> None:
    """Print the matrix of planted faults and the rate of false alarms.

    Raises:
        Exit: with 3 where a fault was missed or a clean log accused.
    """
    from stepcredit.audit.planted_faults import selftest_matrix

    require("report", "scipy")
    with counting_bar("logs") as show:
        done = selftest_matrix(files=CLEAN_FILES, progress=show)
    typer.echo(done.text())
    if not done.finds_all:
        raise typer.Exit(FOUND)
