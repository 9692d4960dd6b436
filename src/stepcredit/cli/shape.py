"""`stepcredit shape`: one advantage per token into each row."""

from __future__ import annotations

from typing import Annotated

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
from stepcredit.cli.output import say
from stepcredit.cli.progress import progress_bar

Output = Annotated[
    str,
    typer.Option("--output", "-o", metavar="OUT", help="File to write; - is standard output."),
]


def shape_command(
    source: Input,
    output: Output,
    *,
    method: Method = "pass",
    settings: Settings,
    imports: Imports,
) -> None:
    """Write the rollouts with one advantage per token, in the same order.

    OUT may be the same file as IN. OUT is replaced only once all rows are written, so after a
    failure the older file is still there.
    """
    import_modules(imports)
    estimator = named_estimator(method, settings)
    with (
        fewer_collections(),
        progress_bar(source) as progress,
        sc.RolloutFile(source, progress) as file,
    ):
        compute = FileEstimator(estimator, file)
        file.shape(output, compute, compute.finish)
        warnings = file.warnings() + warnings_for(estimator, file)
    for warning in warnings:
        say(f"warning: {warning}")


def warnings_for(estimator: sc.Estimator, file: sc.RolloutFile) -> list[str]:
    """What the file holds that leaves a method without credit, one line each."""
    reads = estimator.reads
    compares = reads.process is not None or reads.outcome is not None or reads.format
    return file.group_warnings(compares=compares, gate=reads.gate)
