"""`stepcredit train`: a complete run on an embedded task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from stepcredit.cli.options import (
    Imports,
    Method,
    Settings,
    import_modules,
    named_estimator,
    repeated,
    settings_of,
)
from stepcredit.cli.output import code_of, say
from stepcredit.errors import StepCreditError

COMMAND_LINE = "COMMANDLINE"
WITH_RESUME = ("resume", "cache_dir", "imports")
OPTIONS = {"settings": "--set", "task_fields": "--task-set"}

Compare = Annotated[str, typer.Option(help="A second method to train for comparison, or `none`.")]
Task = Annotated[str, typer.Option(help="The task: arithmetic, multihop or agent.")]
TaskFields = Annotated[
    list[str],
    repeated("--task-set", "An option of the task; VALUE is JSON, or a bare word.", "FIELD=VALUE"),
]
Size = Annotated[str, typer.Option(help="Size of the policy: small or medium.")]
Signal = Annotated[
    str | None,
    typer.Option(
        help="Process scores. arithmetic: exact, noisy (default), hackable, centred or negative, "
        "and made of outcomes: monte-carlo, answer-progress or shared-prefix; "
        "multihop: opd (default), g-opd, opd-steps or g-opd-steps, each also with -mismatched; "
        "agent: exact, noisy (default), hackable, centred, negative or none."
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the warm start, the problems and the noise.")]
Updates = Annotated[int | None, typer.Option(help="Number of generations to train on.")]
Answered = Annotated[float, typer.Option(help="Share of the prompts whose outcomes are known.")]
Device = Annotated[str, typer.Option(help="Where the policy learns: cpu or cuda.")]
Quick = Annotated[bool, typer.Option("--quick", help="A small run of less than a minute.")]
Name = Annotated[str | None, typer.Option(help="Name of the run's folder in RUNS_DIR.")]
RunsDir = Annotated[Path, typer.Option(help="Folder of the runs.")]
CacheDir = Annotated[Path, typer.Option(help="Folder of the cached warm starts.")]
Resume = Annotated[
    Path | None, typer.Option(metavar="RUN", help="Continue the interrupted run in this folder.")
]


def train_command(
    context: typer.Context,
    *,
    method: Method = "pass",
    settings: Settings,
    compare: Compare = "grpo",
    task: Task = "arithmetic",
    task_fields: TaskFields,
    model: Size = "small",
    signal: Signal = None,
    seed: Seed = 0,
    updates: Updates = None,
    answered: Answered = 1.0,
    device: Device = "cpu",
    quick: Quick = False,
    name: Name = None,
    runs_dir: RunsDir = Path("runs"),
    cache_dir: CacheDir = Path("cache/warmstart"),
    resume: Resume = None,
    imports: Imports,
) -> None:
    """Train a small reasoner with step-level credit through TRL, on a laptop's CPU, in minutes."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import_modules(imports)
    try:
        if resume is not None:
            _refuse_others(context)
            from stepcredit.lab import comparison as lab

            lab.resume(resume, cache_dir)
            return
        named_estimator(method, settings)
        chosen = _settings(
            quick,
            method=method,
            fields=settings_of(settings),
            compare=None if compare == "none" else compare,
            task=task,
            task_fields=settings_of(task_fields, "--task-set"),
            model=model,
            seed=seed,
            answered=answered,
            device=device,
            **{n: v for n, v in (("signal", signal), ("updates", updates)) if v is not None},
        )
        from stepcredit.lab import comparison as lab

        lab.train(chosen, runs_dir, name, cache_dir)
    except KeyboardInterrupt as interrupt:
        say(str(interrupt) or "interrupted")
        raise typer.Exit(code_of(interrupt)) from None


def _settings(quick: bool, **given: Any) -> Any:
    from stepcredit.lab.lab_settings import LabSettings, quick_settings

    return (quick_settings if quick else LabSettings)(**given)


def _refuse_others(context: typer.Context) -> None:
    """Refuse other options than those of `--resume`: a resumed run has its own settings."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == COMMAND_LINE and name not in WITH_RESUME:
            option = OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise StepCreditError("the run has its own settings; leave this out", field=option)
