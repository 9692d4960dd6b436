"""The command line: one thin module a command. `stepcredit --help` imports no torch."""

from __future__ import annotations

import signal
import sys

import typer

from stepcredit.cli.compare import compare
from stepcredit.cli.explain import explain
from stepcredit.cli.methods import methods
from stepcredit.cli.shape import shape
from stepcredit.cli.told import told_in_one_line
from stepcredit.cli.train import train
from stepcredit.cli.validate import validate

app = typer.Typer(
    name="stepcredit",
    help="Step scores, log-probs, outcome and format rewards in; one advantage a token out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (validate, shape, explain, compare, methods, train):
    app.command()(told_in_one_line(command))


def main() -> None:
    """Run the command that the arguments name; a stop signal ends it as an error would."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
