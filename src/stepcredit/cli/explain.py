"""`stepcredit explain`: every stage of one group's credit, chunk by chunk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from stepcredit.cli.options import (
    FileEstimator,
    Imports,
    Input,
    Method,
    Settings,
    import_modules,
    named_estimator,
)
from stepcredit.cli.progress import progress_bar
from stepcredit.cli.told import printable, say
from stepcredit.errors import MethodError, RolloutError, RowError, StepCreditError

if TYPE_CHECKING:
    from stepcredit.credit import Explanation
    from stepcredit.data.batches import Batch
    from stepcredit.data.checks import Row
    from stepcredit.data.files import RolloutFile

Group = Annotated[str, typer.Option(help="Label of the group to explain.", show_default=False)]
Number = Annotated[
    int | None, typer.Option("--rollout", min=0, help="One of the group's rollouts, from 0.")
]
Color = Annotated[
    bool, typer.Option("--color", help="Paint one rollout's tokens by credit instead.")
]


def explain(
    source: Input,
    group: Group,
    method: Method = "pass",
    settings: Settings = [],  # noqa: B006
    rollout: Number = None,
    color: Color = False,
    imports: Imports = [],  # noqa: B006
) -> None:
    """Show every stage for one group, by chunk: standardized streams, fused value, credit."""
    from stepcredit.data.files import RolloutFile

    import_modules(imports)
    estimator = named_estimator(method, settings)
    with progress_bar(source) as progress, RolloutFile(source, progress) as file:
        bound = FileEstimator(estimator, file)
        rows = _rows_of(file, group, bound)
        if rollout is not None and rollout >= len(rows):
            raise StepCreditError(f"--rollout {rollout}: group {group} has {len(rows)}, from 0")
        explanation = _explained(bound, rows, file.path)
        warnings = file.warnings()
    if color:
        from stepcredit.cli.paint import paint

        number = rollout or 0
        paint(rows[number], explanation.advantages.ragged()[number])
    else:
        _print(explanation, rollout)
    for warning in warnings:
        say(f"warning: {warning}")


def _rows_of(file: RolloutFile, group: str, bound: FileEstimator) -> list[Row]:
    """The group's rows; the whole file is read, and checked for what the method needs."""
    from stepcredit.data.batches import label_of

    def step(rows: list[Row], batch: Batch) -> list[Row]:
        bound.see(batch.rollouts)
        return rows + [row for row in batch.rows if label_of(row) == group]

    rows: list[Row] = file.fold(list, step, bound.finish)
    if not rows:
        raise StepCreditError(f"--group {group}: there is no such group in {file.path}")
    return rows


def _explained(bound: FileEstimator, rows: list[Row], path: str) -> Explanation:
    from stepcredit.data.batches import Batch

    try:
        return bound.estimator.explain(Batch(rows).rollouts, moments=bound.moments)
    except MethodError as error:
        fault: RolloutError = bound.unfit(error)
    except RolloutError as error:
        fault = error
    line = rows[fault.row or 0].line
    raise RowError(fault.reason, path=path, line=line, field=fault.field)


def _print(explanation: Explanation, rollout: int | None) -> None:
    from rich.console import Console

    from stepcredit.credit.explain import width_of

    if rollout is not None:
        explanation = _only(explanation, rollout)
    table = explanation.table()
    console = Console(width=None if Console().is_terminal else width_of(table))
    with console.capture() as capture:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))
    for line in explanation.footer():
        typer.echo(printable(line))


def _only(explanation: Explanation, rollout: int) -> Explanation:
    """The chunks of one rollout."""
    keep = (explanation.rollout == rollout).nonzero().squeeze(1)
    return replace(
        explanation,
        group=[explanation.group[i] for i in keep.tolist()],
        stages={name: column[keep] for name, column in explanation.stages.items()},
        **{
            name: getattr(explanation, name)[keep]
            for name in ("rollout", "first", "last", "advantage")
        },
    )
