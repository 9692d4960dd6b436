"""`stepcredit convert`: the logs of other tools as rollouts."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

import stepcredit as sc
from stepcredit.cli.options import repeated
from stepcredit.cli.output import say
from stepcredit.cli.progress import counting_bar
from stepcredit.cli.score import Tokenizer, loaded_tokenizer
from stepcredit.cli.shape import Output
from stepcredit.errors import FileError, SettingError

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="[FORMAT] IN",
        help="A log, or a folder of logs: .jsonl, .json, .gz or .parquet. Its format is found out "
        "by its fields, unless it is named before it.",
    ),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FORMAT",
        help="trl-completions, verl-rollouts, swift-completions, verifiers-results, "
        "verifiers-traces, prime-rl-tokens, lm-eval-samples, qwen-eval, question-rollouts, "
        "slime-samples, messages or gsm8k-solutions.",
        show_default=False,
    ),
]
Outcome = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="The column of the outcome reward.", show_default=False),
]
Format = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="The column of the format reward.", show_default=False),
]
GroupSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Responses per group, where a prompt was sampled more than once in a step and the log "
        "names no groups. Default: all responses to a prompt in a step.",
    ),
]
Marks = Annotated[
    list[str],
    repeated(
        "--tool-marks",
        "What stands around a tool's answer in a response, such as '<result>...</result>', "
        "beside the marks that are known; none: tools wrote nothing.",
        "OPEN...CLOSE",
    ),
]


def convert_command(
    sources: Sources,
    output: Output,
    *,
    format_name: From = None,
    outcome: Outcome = None,
    format: Format = None,
    group_size: GroupSize = None,
    tool_marks: Marks,
    tokenizer: Tokenizer = None,
) -> None:
    """Convert the logs of other tools to rollouts.

    Rows that can't be used are left out, counted and named; OUT is there whole or not at all.
    """
    from stepcredit.logs.conversion import LogConversion
    from stepcredit.logs.log_formats import GSM8K, log_format, name_of_log
    from stepcredit.logs.logged_response import RewardColumns

    name, source = format_and_source(sources, format_name)
    name = name_of_log(source) if name is None else name
    loaded = None if tokenizer is None else loaded_tokenizer(tokenizer)
    if name == GSM8K:
        from stepcredit.signals.programs.gsm8k import gsm8k_solutions

        _write(source, output, gsm8k_solutions(source, loaded))
        return
    columns = RewardColumns(outcome, format, group_size, tuple(tool_marks))
    log = LogConversion(source, log_format(name), columns, loaded)
    _write(source, output, log.rows())
    for line in log.notes():
        say(f"warning: {line}")


def format_and_source(sources: list[str], format_name: str | None) -> tuple[str | None, str]:
    """The format that is named, if one is, and the file or folder.

    Raises:
        SettingError: a format beside `--from`, or more than one file.

    Example:
        >>> format_and_source(["verl-rollouts", "dump"], None)
        ('verl-rollouts', 'dump')
        >>> format_and_source(["dump"], None)
        (None, 'dump')
    """
    from stepcredit.logs.log_formats import GSM8K, LOG_FORMATS

    *before, source = sources
    if not before:
        return format_name, source
    if len(before) == 1 and before[0] in (*LOG_FORMATS, GSM8K):
        if format_name not in (None, before[0]):
            raise SettingError(f"--from {format_name}: {before[0]} is named too")
        return before[0], source
    raise SettingError(f"{source}: convert takes one file or folder, and a format before it")


OWN_OPTIONS = ("--outcome", "--format", "--group-size", "--tool-marks")
"""Options about logs that `convert` alone has; the reader of logs names them in its messages."""
CONVERT_FIRST = "that option is `stepcredit convert`'s: IN may be what it writes"


@contextmanager
def reading_logs() -> Iterator[None]:
    """For other commands that read logs: warnings in one line each, and whose options they name.

    Raises:
        SettingError: as raised inside; one that names an option of `convert` says what to do.
    """
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", UserWarning)
        try:
            yield
        except SettingError as error:
            if _names_own_option(str(error)):
                raise SettingError(f"{error}; {CONVERT_FIRST}") from None
            raise
    say_notes(str(note.message) for note in notes)


def say_notes(notes: Iterable[str]) -> None:
    """For other commands that read logs: print notes as warnings, each once, in one line."""
    for note in dict.fromkeys(notes):
        say(f"warning: {note}; {CONVERT_FIRST}" if _names_own_option(note) else f"warning: {note}")


def _names_own_option(message: str) -> bool:
    return any(word.rstrip(":") in OWN_OPTIONS for word in message.split())


def _write(source: str, output: str, rows: Iterator[dict[str, Any]]) -> None:
    with counting_bar("rows") as progress:
        sc.write_rollouts(output, _counted(source, rows, progress))


def _counted(
    source: str, rows: Iterator[dict[str, Any]], progress: Any
) -> Iterator[dict[str, Any]]:
    number = 0
    for number, row in enumerate(rows, start=1):
        if progress is not None:
            progress(number, None)
        yield row
    if number == 0:
        raise FileError(f"{source}: there are no rollouts in it")
