"""The command line: one module per command, imported when the command runs.

`stepcredit --help` imports no torch.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stepcredit.cli.lazy_loading import lazy_command
from stepcredit.cli.output import report_error
from stepcredit.cli.standard_streams import open_standard_streams, stop_on_signals

COMMANDS = {
    "Rollout files": {
        "validate": (
            "validate:validate_command",
            "Check every rule of the format, and print what the file holds.",
        ),
        "score": (
            "score:score_command",
            "Write the rollouts with a signal's scores, in the same order.",
        ),
        "states": (
            "write_state_keys:states_command",
            "Write the rollouts with the state that each step was taken in, in the same order.",
        ),
        "reward": (
            "reward:reward_command",
            "Write the rollouts with an outcome, or a format and its gate, in the same order.",
        ),
        "filter": (
            "filter:filter_command",
            "Write the rollouts whose process scores agree with their outcome, right and wrong in "
            "balance.",
        ),
        "shape": (
            "shape:shape_command",
            "Write the rollouts with one advantage per token, in the same order.",
        ),
        "explain": (
            "explain:explain_command",
            "Show every stage for one group, by chunk: standardized streams, fused value, credit.",
        ),
        "compare": (
            "compare:compare_command",
            "Show how far methods agree, and the rollouts on which they differ most.",
        ),
        "audit": (
            "audit:audit_command",
            "Show what a signal would teach: faults of the data, what each method pays, what is "
            "gamed.",
        ),
        "attack": (
            "attack:attack_command",
            "Edit the responses, score them again, and print what each edit earns.",
        ),
        "oracles": (
            "oracles:oracles_command",
            "Measure methods against the exact advantages of small tasks, and decide claims.",
        ),
        "convert": ("convert:convert_command", "Convert the logs of other tools to rollouts."),
    },
    "Lists": {
        "methods": (
            "listing:list_methods",
            "List the methods: equation, fields with their defaults, source.",
        ),
        "signals": (
            "listing:list_signals",
            "List the signals: equation, fields with their defaults, source.",
        ),
        "rewards": (
            "listing:list_rewards",
            "List the rewards: equation, fields with their defaults, source.",
        ),
    },
    "This installation": {
        "doctor": (
            "doctor:doctor_command",
            "Print what a bug report needs: versions, hooks that hold, GPUs, tokenizers.",
        ),
    },
    "Training and judging": {
        "train": (
            "train:train_command",
            "Train a small reasoner with step-level credit through TRL, on a laptop's CPU, "
            "in minutes.",
        ),
        "study": (
            "study:app",
            "Run methods x signals x seeds into one store, and make the page of results from it.",
        ),
        "panels": (
            "panels:app",
            "Ready-made dashboards of a run's metrics: a W&B view, or Trackio in order.",
        ),
        "eval": (
            "eval:eval_command",
            "Sample a model on benchmarks; print pass@k, majority votes, lengths, with intervals.",
        ),
        "serve": (
            "serve:serve_command",
            "Print or start the vLLM command that serves MODEL; check that it scores as it should.",
        ),
        "prm": (
            "prm:app",
            "Train a process reward model on labelled steps; judge any signal on them.",
        ),
    },
}
"""For each panel of the help: its commands, with their place in this package and line of help."""

app = typer.Typer(
    name="stepcredit",
    help="Step scores, log-probs, outcome and format rewards in; one advantage per token out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from stepcredit import __version__

        typer.echo(f"stepcredit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


for panel, commands in COMMANDS.items():
    for name, (target, about) in commands.items():
        lazy_command(app, name, f"stepcredit.cli.{target}", about, panel)


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
        code = report_error(error)
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or report_error(error)
    return code
