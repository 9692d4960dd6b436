"""The command line: one thin module a command. `stepcredit --help` imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from stepcredit.cli import convert, prm
from stepcredit.cli.compare import compare
from stepcredit.cli.explain import explain
from stepcredit.cli.listing import methods, rewards, signals
from stepcredit.cli.output import ended, told_in_one_line
from stepcredit.cli.reward import reward
from stepcredit.cli.score import score
from stepcredit.cli.shape import shape
from stepcredit.cli.standard_streams import open_standard_streams, stop_on_signals
from stepcredit.cli.train import train
from stepcredit.cli.validate import validate

app = typer.Typer(
    name="stepcredit",
    help="Step scores, log-probs, outcome and format rewards in; one advantage a token out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
FILES, LISTS, TRAINING = "Rollout files", "What there is", "Training and judging"
PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    FILES: (validate, score, reward, shape, explain, compare),
    LISTS: (methods, signals, rewards),
    TRAINING: (train,),
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(told_in_one_line(command))
app.add_typer(convert.app, name="convert", rich_help_panel=FILES)
app.add_typer(prm.app, name="prm", rich_help_panel=TRAINING)


def main() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    open_standard_streams()
    stop_on_signals()
    sys.exit(_exit_code())


def _exit_code() -> int | str | None:
    code: int | str | None = 0
    try:
        app()
    except SystemExit as end:  # how typer ends every command
        code = end.code
    except BaseException as error:
        code = ended(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or ended(error)
    return code
