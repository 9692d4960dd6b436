"""`stepcredit train`: the embedded study task, from nothing to curves."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from stepcredit.errors import StepCreditError

INTERRUPTED = 130
COMMAND_LINE = "COMMANDLINE"
WITH_RESUME = ("resume", "cache_dir")


def train(
    context: typer.Context,
    method: Annotated[str, typer.Option(help="Estimator; see `stepcredit methods`.")] = "pass",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Estimator's field: JSON or a word."),
    ] = None,
    compare: Annotated[str, typer.Option(help="Method trained second, or `none`.")] = "grpo",
    signal: Annotated[
        str, typer.Option(help="Step scores: exact, noisy, hackable, centred or negative.")
    ] = "noisy",
    seed: Annotated[int, typer.Option(help="Of the warm start, the problems and the noise.")] = 0,
    updates: Annotated[int | None, typer.Option(help="Generations to train on.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A small run, under a minute.")] = False,
    name: Annotated[str | None, typer.Option(help="The run's folder in RUNS_DIR.")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("runs"),
    cache_dir: Annotated[Path, typer.Option(help="Where warm starts are kept.")] = Path(
        "cache/warmstart"
    ),
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
) -> None:
    """Train a small reasoner with step-level credit through TRL, on a laptop's CPU, in minutes."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        if resume is not None:
            _refuse_others(context)
            from stepcredit.lab import train as lab

            lab.resume(resume, cache_dir)
            return
        settings = _settings(
            quick,
            method=method,
            fields=parse_fields(set_ or []),
            compare=None if compare == "none" else compare,
            signal=signal,
            seed=seed,
            **({} if updates is None else {"updates": updates}),
        )
        from stepcredit.lab import train as lab

        lab.train(settings, runs_dir, name, cache_dir)
    except StepCreditError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt as interrupt:
        typer.echo(str(interrupt) or "interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _settings(quick: bool, **given: Any) -> Any:
    from dataclasses import replace

    from stepcredit.lab.settings import TrainSettings, quick_settings

    if quick:
        return quick_settings(**given)
    settings = TrainSettings(**given)
    return replace(settings, warm=replace(settings.warm, seed=settings.seed))


def parse_fields(assignments: list[str]) -> dict[str, Any]:
    """FIELD=VALUE pairs; a value is JSON, or else a bare word.

    Raises:
        StepCreditError: an assignment without `=`.

    Example:
        >>> parse_fields(["k=0.5", "scope=process", "gate=false"])
        {'k': 0.5, 'scope': 'process', 'gate': False}
    """
    fields = {}
    for assignment in assignments:
        field, equals, value = assignment.partition("=")
        if not equals or not field:
            raise StepCreditError(f"expected FIELD=VALUE, got {assignment!r}", field="--set")
        try:
            fields[field] = json.loads(value)
        except ValueError:
            fields[field] = value
    return fields


def _refuse_others(context: typer.Context) -> None:
    """A resumed run has its own settings."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == COMMAND_LINE and name not in WITH_RESUME:
            option = f"--{name.rstrip('_').replace('_', '-')}"
            raise StepCreditError("the run has its own settings; leave this out", field=option)
