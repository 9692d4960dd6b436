"""`stepcredit explain`: every stage of one group's credit, chunk by chunk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stepcredit as sc
from stepcredit.cli.options import (
    FileEstimator,
    Imports,
    Input,
    Method,
    Settings,
    fewer_collections,
    import_modules,
    named_estimator,
)
from stepcredit.cli.output import printable, say
from stepcredit.cli.paint import paint
from stepcredit.cli.progress import progress_bar
from stepcredit.errors import MethodError, RolloutError, SettingError, StepCreditError

if TYPE_CHECKING:
    from stepcredit.data.files.batches import Batch
    from stepcredit.data.files.rows import Row

Group = Annotated[str, typer.Option(help="Label of the group to explain.", show_default=False)]
Number = Annotated[
    int | None,
    typer.Option("--rollout", min=0, help="Number of one of the group's rollouts, from 0."),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--rollouts",
        metavar="A:B",
        help="The group's rollouts from A to B - 1; A or B may be left out.",
    ),
]
Chunks = Annotated[
    str,
    typer.Option(
        "--chunks",
        metavar="N",
        help="How many chunks are shown; or A:B, the chunks from A to B - 1.",
    ),
]
Color = Annotated[
    bool,
    typer.Option("--color", help="Print one rollout's tokens, coloured by their credit, instead."),
]


def explain_command(
    source: Input,
    group: Group,
    *,
    method: Method = "pass",
    settings: Settings,
    rollout: Number = None,
    rollouts: Range = None,
    chunks: Chunks = "200",
    color: Color = False,
    imports: Imports,
) -> None:
    """Show every stage for one group, by chunk: standardized streams, fused value, credit."""
    import_modules(imports)
    estimator = named_estimator(method, settings)
    shown = ShownChunks.of(rollout, rollouts, chunks)
    if color and rollouts is not None:
        raise SettingError(
            "--color: shows one rollout: name it with --rollout, not with --rollouts"
        )
    with (
        fewer_collections(),
        progress_bar(source) as progress,
        sc.RolloutFile(source, progress) as file,
    ):
        bound = FileEstimator(estimator, file)
        rows = _rows_of(file, group, bound)
        if shown.first >= len(rows):
            raise StepCreditError(f"{shown.option}: group {group} has {len(rows)}, from 0")
        explanation = _explained(bound, rows, file.path)
        warnings = file.warnings()
    if color:
        number = rollout or 0
        paint(rows[number], explanation.advantages.ragged()[number])
    else:
        _print(explanation, shown)
    for warning in warnings:
        say(f"warning: {warning}")


@dataclass(frozen=True)
class ShownChunks:
    """Which chunks are printed.

    Args:
        option: the option that names the rollouts, as the user wrote it.
        rollouts: which of the group's rollouts.
        start, limit: the first chunk of these rollouts that is shown, and how many are shown.
    """

    option: str
    rollouts: slice
    start: int
    limit: int | None

    @classmethod
    def of(cls, rollout: int | None, rollouts: str | None, chunks: str) -> ShownChunks:
        """The chunks that `--rollout`, `--rollouts` and `--chunks` name.

        Raises:
            SettingError: an option holds no range, or two options name rollouts.
        """
        if rollout is not None and rollouts is not None:
            raise SettingError("--rollouts: --rollout is given too; expected one of the two")
        number = int(chunks) if chunks.isascii() and chunks.isdigit() and len(chunks) < 10 else None
        if number == 0:
            raise SettingError("--chunks: expected at least 1 chunk, got 0")
        window = (
            slice(0, number) if number is not None else parse_range(chunks, "--chunks", "N or A:B")
        )
        start = window.start or 0
        limit = None if window.stop is None else window.stop - start
        if rollout is not None:
            return cls(f"--rollout {rollout}", slice(rollout, rollout + 1), start, limit)
        if rollouts is None:
            return cls("", slice(None), start, limit)
        return cls(
            f"--rollouts {rollouts}", parse_range(rollouts, "--rollouts", "A:B"), start, limit
        )

    @property
    def first(self) -> int:
        """The first rollout shown."""
        return self.rollouts.start or 0

    @property
    def window(self) -> dict[str, Any]:
        """The arguments of `Explanation.table`."""
        return {"limit": self.limit, "start": self.start, "rollouts": self.rollouts}


def parse_range(text: str, option: str, form: str) -> slice:
    """A:B as a slice; a side that is left out is None.

    Raises:
        SettingError: `OPTION: expected FORM, ...`.

    Example:
        >>> parse_range("2:5", "--rollouts", "A:B"), parse_range(":3", "--rollouts", "A:B")
        (slice(2, 5, None), slice(None, 3, None))
    """
    found = re.fullmatch(r"([0-9]{0,9}):([0-9]{0,9})", text)
    if found is None:
        raise SettingError(f"{option}: expected {form}, whole numbers from 0, got {text!r}")
    first, past = (int(side) if side else None for side in found.groups())
    if past is not None and past <= (first or 0):
        raise SettingError(f"{option}: expected {form} with A below B, got {text!r}")
    return slice(first, past)


def _rows_of(file: sc.RolloutFile, group: str, bound: FileEstimator) -> list[Row]:
    """The group's rows; the whole file is read, and checked for what the method needs."""
    from stepcredit.data.files.batches import group_label

    def step(rows: list[Row], batch: Batch) -> list[Row]:
        bound.see(batch.rollouts)
        rows.extend(row for row in batch.rows if group_label(row) == group)
        return rows

    rows: list[Row] = file.fold(list, step, bound.finish)
    if not rows:
        raise StepCreditError(f"--group {group}: there is no such group in {file.path}")
    return rows


def _explained(bound: FileEstimator, rows: list[Row], path: str) -> sc.Explanation:
    from stepcredit.data.files.batches import Batch

    try:
        return bound.estimator.explain(Batch(rows).rollouts, moments=bound.moments)
    except MethodError as error:
        fault: RolloutError = bound.unfit(error)
    except RolloutError as error:
        fault = error
    raise fault.at_line(path, rows[fault.row or 0].line)


def _print(explanation: sc.Explanation, shown: ShownChunks) -> None:
    from stepcredit.credit.rich_table import table_lines

    chunks = explanation.chunks_of(shown.rollouts)
    count = chunks.stop - chunks.start
    if shown.start >= count:
        there = f"{count:,} chunk{'s' * (count != 1)}"
        raise SettingError(f"--chunks: there {'are' if count != 1 else 'is'} {there}, from 0")
    typer.echo("\n".join(table_lines(explanation.table(**shown.window))))
    left_out = explanation.left_out_of_table(**shown.window)
    hint = f"{left_out}; others: --chunks A:B, --rollout I, --rollouts A:B"
    for line in ([hint] if left_out else []) + explanation.footer():
        typer.echo(printable(line))
