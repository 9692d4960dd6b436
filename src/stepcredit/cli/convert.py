"""`stepcredit convert`: the files of other tools as rollouts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

import stepcredit as sc
from stepcredit.cli.output import CommandApp
from stepcredit.cli.progress import counting_bar
from stepcredit.cli.score import Tokenizer, loaded_tokenizer
from stepcredit.cli.shape import Output
from stepcredit.errors import FileError

app = CommandApp(help="Convert the files of other tools to rollouts.", no_args_is_help=True)

Solutions = Annotated[
    str, typer.Argument(metavar="IN", help="GSM8K's example_model_solutions.jsonl.")
]
Completions = Annotated[
    str, typer.Argument(metavar="IN", help="A completions_*.parquet file, or their folder.")
]
Dumped = Annotated[str, typer.Argument(metavar="IN", help="A STEP.jsonl file, or their folder.")]
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
    typer.Option(min=1, help="Responses per prompt. Default: adjacent rows with the same prompt."),
]


@app.command("gsm8k-solutions")
def convert_gsm8k(source: Solutions, output: Output, tokenizer: Tokenizer = None) -> None:
    """Four models' solutions to each question as one group: lines are steps, equations checked."""
    from stepcredit.signals.programs.gsm8k import gsm8k_solutions

    _write(source, output, gsm8k_solutions(source, _loaded(tokenizer)))


@app.command("trl-completions")
def convert_trl(
    source: Completions,
    output: Output,
    outcome: Outcome = None,
    format: Format = None,
    group_size: GroupSize = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Convert the files that TRL writes with log_completions=True."""
    from stepcredit.engines.logged_rows import RewardColumns
    from stepcredit.engines.trl.completion_logs import read_completion_logs

    columns = RewardColumns(outcome, format, group_size)
    _write(source, output, read_completion_logs(source, columns, _loaded(tokenizer)))


@app.command("verl-rollouts")
def convert_verl(
    source: Dumped,
    output: Output,
    outcome: Outcome = None,
    format: Format = None,
    group_size: GroupSize = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Convert the files that verl writes into trainer.rollout_data_dir."""
    from stepcredit.engines.logged_rows import RewardColumns
    from stepcredit.engines.verl.generation_dumps import read_verl_dumps

    columns = RewardColumns(outcome, format, group_size)
    _write(source, output, read_verl_dumps(source, columns, _loaded(tokenizer)))


def _loaded(tokenizer: str | None) -> Any:
    return None if tokenizer is None else loaded_tokenizer(tokenizer)


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
