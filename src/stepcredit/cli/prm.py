"""`stepcredit prm`: train a reward model on labelled steps, and judge any signal on them."""

from __future__ import annotations

import json
from dataclasses import fields as declared
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from stepcredit.cli.options import Imports, import_modules, repeated, settings_of
from stepcredit.cli.output import CommandApp, code_of, say
from stepcredit.cli.prm_report import bars, print_figures
from stepcredit.cli.score import named_signal
from stepcredit.cli.served_counts import say_served
from stepcredit.errors import FileError, SettingError, StepCreditError
from stepcredit.settings.registry import hint

if TYPE_CHECKING:
    from stepcredit.prm.labelled.labelled_file import LabelledFile

Given = TypeVar("Given")
SHARE_FOR_THRESHOLD = 0.2
TRAIN_FIELDS = (
    "protocol, protocol_settings, epochs, max_steps, learning_rate, warmup, schedule, "
    "weight_decay, batch_tokens, accumulate, label_smoothing, mask_after_error, max_length, "
    "overlong, precision, checkpoint_every"
)

Rows = Annotated[
    list[str],
    typer.Argument(metavar="ROWS...", help="Step-labelled rows: .jsonl, .jsonl.gz, .parquet."),
]
NewRows = Annotated[
    list[str] | None,
    typer.Argument(metavar="ROWS...", help="Step-labelled rows: .jsonl, .jsonl.gz, .parquet."),
]
Format = Annotated[
    str,
    typer.Option(
        help="prm800k, math-shepherd, prmbench, processbench, stepwise; auto: by each row's fields."
    ),
]
BadRows = Annotated[str, typer.Option(help="A bad row: refuse it, or skip it and count it.")]
Neutral = Annotated[
    str, typer.Option(help="What PRM800K's rating 0 counts as: right, wrong or ignore.")
]
Alternatives = Annotated[
    bool, typer.Option("--alternatives", help="PRM800K: also read the steps that were not taken.")
]
Originals = Annotated[bool, typer.Option(help="PRMBench: also read the unmodified solutions.")]
Seed = Annotated[int, typer.Option(help="Seed of the split by question, and of the training.")]
Model = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="The model to train: a folder, or a name on the Hub."),
]
Folder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="New folder for the trained model."),
]
Resume = Annotated[Path | None, typer.Option(metavar="DIR", help="Continue the run in DIR.")]
TrainSet = Annotated[
    list[str],
    repeated("--set", f"One of {TRAIN_FIELDS}.", "FIELD=VALUE"),
]
SignalSet = Annotated[
    list[str],
    repeated("--set", "A field of the signal.", "FIELD=VALUE"),
]

app = CommandApp(
    name="prm",
    help="Train a process reward model on labelled steps; judge any signal on them.",
    no_args_is_help=True,
)


@app.command("train")
def train_prm_command(
    *,
    rows: NewRows = None,
    model: Model = None,
    output: Folder = None,
    settings: TrainSet,
    format: Format = "auto",
    bad_rows: BadRows = "refuse",
    neutral: Neutral = "right",
    alternatives: Alternatives = False,
    originals: Originals = True,
    seed: Seed = 0,
    test: Annotated[
        float, typer.Option(help="Share of the questions on which the model is judged.")
    ] = 0.2,
    validation: Annotated[
        float, typer.Option(help="Share of the questions that choose the threshold.")
    ] = 0.1,
    resume: Resume = None,
) -> None:
    """Train a two-class reward model; report F1, AUC and calibration on held-out questions."""
    if resume is not None:
        _train(resume, _recorded(resume), resume=True)
        return
    rows, model = _needed(rows, "ROWS"), _needed(model, "--model")
    folder = _needed(output, "-o")
    reading = {"neutral": neutral, "alternatives": alternatives, "originals": originals}
    own = {"seed": seed, "test": test, "validation": validation}
    fields = settings_of(settings)
    for field in own.keys() & fields.keys():
        raise SettingError(f"is a separate option: --{field}", field=f"--set {field}")
    record = {
        "model": model,
        "settings": {**fields, **own},
        "read": {"paths": rows, "format": format, "bad": bad_rows, "reading": reading},
    }
    _train(folder, record, resume=False)


def _needed(value: Given | None, name: str) -> Given:
    if not value:
        raise StepCreditError("is required unless --resume is given", field=name)
    return value


def _recorded(folder: Path) -> dict[str, Any]:
    """The model, settings and files with which a run was started."""
    try:
        record: dict[str, Any] = json.loads((folder / "training.json").read_bytes())
        return {name: record[name] for name in ("model", "settings", "read")}
    except (OSError, ValueError, KeyError):
        raise FileError("holds no run to resume", field=str(folder)) from None


def _train(folder: Path, record: dict[str, Any], *, resume: bool) -> None:
    from stepcredit.prm.training.pipeline import train_prm
    from stepcredit.prm.training.train_settings import PRMTrainSettings

    try:
        settings = PRMTrainSettings(**_known_fields(record["settings"], PRMTrainSettings))
    except SettingError as error:
        has_option = error.field in ("seed", "test", "validation")
        placed = error.at(field=f"--{error.field}") if has_option else error.at(under="--set")
        raise placed from error.__cause__
    read = _read(**record["read"])
    try:
        with bars() as shown:
            figures = train_prm(
                read.rows,
                record["model"],
                folder,
                settings,
                resume=resume,
                extra={"read": record["read"]},
                report=shown.update,
                scored=shown.score,
            )
    except KeyboardInterrupt as stop:
        say(f"interrupted; continue with: stepcredit prm train --resume {folder}")
        raise typer.Exit(code_of(stop)) from None
    print_figures(figures, f"{folder}: judged on {figures['data']['questions']} held-out questions")


@app.command("eval")
def evaluate_prm_command(
    rows: Rows,
    signal: Annotated[str, typer.Option(help="A signal, as `stepcredit signals` lists them.")],
    *,
    settings: SignalSet,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for metrics.json and judged.png."
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="A step that scores below it is an error. Default: the best on other questions."
        ),
    ] = None,
    pool: Annotated[
        str,
        typer.Option(
            help="How a step's score is made of its tokens' scores: sum, mean, min or last."
        ),
    ] = "sum",
    format: Format = "auto",
    bad_rows: BadRows = "refuse",
    neutral: Neutral = "right",
    alternatives: Alternatives = False,
    originals: Originals = True,
    seed: Seed = 0,
    test: Annotated[
        float | None,
        typer.Option(help="Share of the questions that are judged. Default: all others."),
    ] = None,
    validation: Annotated[
        float | None, typer.Option(help="Share of the questions that choose the threshold.")
    ] = None,
    imports: Imports,
) -> None:
    """Judge any signal on labelled steps: F1 of the first error, AUC, calibration."""
    from stepcredit.prm.judging.evaluation import check_judges_text
    from stepcredit.prm.judging.judged_files import evaluate_signal

    import_modules(imports)
    scorer = named_signal(signal, settings)
    try:
        check_judges_text(scorer)
    except SettingError as error:
        raise SettingError(error.reason, field=f"--signal {signal}") from None
    reading = {"neutral": neutral, "alternatives": alternatives, "originals": originals}
    read = _read(rows, format, bad_rows, reading)
    if validation is None:
        validation = SHARE_FOR_THRESHOLD if threshold is None else 0.0
    with bars() as shown:
        figures = evaluate_signal(
            scorer,
            read.rows,
            threshold=threshold,
            pool=pool,
            seed=seed,
            test=1 - validation if test is None else test,
            validation=validation,
            output=output,
            scored=shown.score,
        )
    say_served(signal, scorer.served_statistics())
    print_figures(figures, f"{signal}: judged on {figures['data']['questions']} questions")


def _read(paths: list[str], format: str, bad: str, reading: dict[str, Any]) -> LabelledFile:
    """Read the labelled rows; print one line if some were skipped."""
    from stepcredit.prm.labelled.label_fields import LabelOptions
    from stepcredit.prm.labelled.labelled_file import read_labelled

    try:
        read = read_labelled(paths, format, LabelOptions(**reading), bad)
    except SettingError as error:
        option = "--bad-rows" if error.field == "bad" else f"--{error.field}"
        raise error.at(field=option) from error.__cause__
    if read.faults:
        count = len(read.faults)
        say(f"{count} bad row{'s' * (count > 1)} skipped, the first: {read.faults[0]}")
    return read


def _known_fields(fields: dict[str, Any], kind: type) -> dict[str, Any]:
    """The fields, unchanged; an unknown one is refused."""
    names = [field.name for field in declared(kind)]
    for field in fields:
        if field not in names:
            raise SettingError(f"no such field{hint(field, names)}", field=field)
    return fields
