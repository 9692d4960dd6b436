"""`stepcredit compare`: how far methods agree, and where they differ."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Annotated

import typer

import stepcredit as sc
from stepcredit.cli.options import (
    FileEstimator,
    Imports,
    Input,
    fewer_collections,
    import_modules,
    named_variant,
)
from stepcredit.cli.output import say
from stepcredit.cli.progress import progress_bar

if TYPE_CHECKING:
    from stepcredit.credit.metrics.agreement import Agreement
    from stepcredit.data.files.batches import Batch

ROLLOUTS_SHOWN = 5
Methods = Annotated[
    list[str],
    typer.Argument(
        metavar="METHOD METHOD...",
        help="Two or more methods; NAME:FIELD=VALUE,FIELD=VALUE sets fields.",
    ),
]


def compare_command(source: Input, methods: Methods, imports: Imports) -> None:
    """Show how far methods agree, and the rollouts on which they differ most."""
    from stepcredit.credit.metrics.agreement import Agreement

    if len(methods) < 2:
        raise typer.BadParameter("name at least two methods", param_hint="METHOD")
    import_modules(imports)
    estimators = [named_variant(method, f"METHOD {method}") for method in methods]
    with (
        fewer_collections(),
        progress_bar(source) as progress,
        sc.RolloutFile(source, progress) as file,
    ):
        bound = [FileEstimator(estimator, file) for estimator in estimators]
        agreement = file.fold(
            lambda: Agreement(len(bound)), lambda a, b: _with(a, b, bound), lambda: _finish(bound)
        )
        warnings = file.warnings()
    _print(methods, agreement)
    for warning in warnings:
        say(f"warning: {warning}")


def _finish(bound: list[FileEstimator]) -> None:
    for estimator in bound:
        estimator.finish()


def _with(agreement: Agreement, batch: Batch, bound: list[FileEstimator]) -> Agreement:
    """The agreement with a batch more; a trajectory of several rows is one rollout."""
    import numpy as np

    parts, lengths = batch.rollouts.trajectories, batch.rollouts.joined().lengths
    found, first = [estimator(batch.rollouts) for estimator in bound], batch.rows
    if parts is not None:
        found = [advantages.take(parts.order) for advantages in found]
        first = [batch.rows[at] for at in parts.first.tolist()]
    packed = [advantages.packed().numpy() for advantages in found]
    agreement.add(np.array(packed, dtype=np.float64), lengths.numpy())
    agreement.places += [(row.line, str(row.group)) for row in first]
    return agreement


def _print(methods: list[str], agreement: Agreement) -> None:
    from rich.table import Table

    from stepcredit.credit.rich_table import literal, table_lines

    pairs = Table(box=None, pad_edge=False)
    for heading in ("methods", "correlation", "same sign", "rank agreement"):
        pairs.add_column(heading, justify="left" if heading == "methods" else "right")
    for a, b in combinations(range(len(methods)), 2):
        pairs.add_row(
            literal(f"{methods[a]} {methods[b]}"),
            f"{agreement.correlation(a, b):.3f}",
            f"{agreement.sign_agreement(a, b):.1%}",
            f"{agreement.rank_agreement(a, b):.3f}",
        )
    apart = Table(box=None, pad_edge=False)
    for heading in ("line", "group", *methods):
        apart.add_column(literal(heading), justify="left" if heading == "group" else "right")
    for at, means in agreement.apart(ROLLOUTS_SHOWN):
        line, group = agreement.places[at]
        apart.add_row(str(line), literal(group), *(f"{mean:.4f}" for mean in means))
    about = "correlation and same sign: over tokens; rank agreement: over rollouts' mean advantages"
    headings = [about, "", "mean advantage where they differ most"]
    typer.echo("\n".join([*table_lines(pairs), *headings, *table_lines(apart)]))
