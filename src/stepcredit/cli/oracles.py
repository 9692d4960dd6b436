"""`stepcredit oracles`: every method beside the exact advantages of small tasks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from stepcredit.cli.options import Imports, Settings, import_modules, named_estimator, settings_of
from stepcredit.cli.progress import counting_bar
from stepcredit.errors import MethodError

if TYPE_CHECKING:
    from stepcredit.oracles import Claim, Contestant, OracleRow, TurnBaselineRow

Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DOCUMENT",
        help="Write Markdown between the marks of this document, or into a new one.",
        show_default=False,
    ),
]
OneMethod = Annotated[
    str | None,
    typer.Option("--method", help="Only this method, as `stepcredit methods` lists them."),
]
Worlds = Annotated[
    list[str],
    typer.Option(
        "--world",
        help="Only this task; may be repeated.",
        show_default=False,
        default_factory=list,
    ),
]
GroupSize = Annotated[
    int, typer.Option(min=2, max=6, help="Responses per group; 6 takes about two CPU minutes.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.", show_default=False)]


def oracles_command(
    *,
    method: OneMethod = None,
    settings: Settings,
    imports: Imports,
    worlds: Worlds,
    group_size: GroupSize = 4,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Measure methods against the exact advantages of small tasks, and decide claims.

    Without --method and --world, all methods and all tasks are measured, the claims about
    mechanisms are decided, and baselines of turn returns are compared.
    """
    if as_json and output is not None:
        raise typer.BadParameter("goes without --output", param_hint="--json")
    import_modules(imports)
    rows = _rows(_contestants(method, settings), worlds, group_size)
    everything = not (method or worlds)
    claims = _claims(rows) if everything else []
    baselines = _baselines(group_size) if everything else []
    if as_json:
        from stepcredit.oracles.oracle_report import as_plain_values

        typer.echo(json.dumps(as_plain_values(rows, claims, baselines), indent=1))
    elif output is not None:
        _write(output, rows, claims, baselines)
    else:
        _print(rows, claims, baselines)


def _contestants(method: str | None, settings: list[str]) -> list[Contestant]:
    from stepcredit.oracles import CONTESTANTS, Contestant

    if method is None:
        if settings:
            raise MethodError("needs --method", field="--set")
        return list(CONTESTANTS)
    named_estimator(method, settings)
    contestant = Contestant(method, settings_of(settings))
    _refuse_unread(contestant)
    return [contestant]


def _refuse_unread(contestant: Contestant) -> None:
    try:
        contestant.estimator()
    except MethodError as error:
        raise error.at(under="--set") from None


def _rows(contestants: list[Contestant], worlds: list[str], group_size: int) -> list[OracleRow]:
    from stepcredit.oracles import WORLDS, oracle_table
    from stepcredit.settings.registry import hint

    for world in worlds:
        if world not in WORLDS:
            raise MethodError(f"unknown task{hint(world, list(WORLDS))}", field=f"--world {world}")
    with counting_bar("oracles") as progress:
        return oracle_table(contestants, dict.fromkeys(worlds or WORLDS), progress, group_size)


def _claims(rows: list[OracleRow]) -> list[Claim]:
    from stepcredit.oracles import decided_claims

    return decided_claims(rows)


def _baselines(group_size: int) -> list[TurnBaselineRow]:
    from stepcredit.oracles import turn_baseline_table

    return turn_baseline_table(group_size=group_size)


def _write(
    output: str, rows: list[OracleRow], claims: list[Claim], baselines: list[TurnBaselineRow]
) -> None:
    from stepcredit.oracles import oracle_report as report

    table = report.markdown_rows(report.TABLE_HEADINGS, report.table_cells(rows))
    blocks = {report.TABLE_MARK: table}
    if claims:
        cells = report.claim_cells(claims)
        blocks[report.CLAIMS_MARK] = report.markdown_rows(report.CLAIM_HEADINGS, cells)
    if baselines:
        headings, lines = report.baseline_headings(baselines), report.baseline_cells(baselines)
        blocks[report.BASELINES_MARK] = report.markdown_rows(headings, lines)
    report.write_between_marks(output, blocks)


def _print(rows: list[OracleRow], claims: list[Claim], baselines: list[TurnBaselineRow]) -> None:
    from stepcredit.credit.rich_table import explanation_table, table_lines
    from stepcredit.oracles import oracle_report as report

    table = explanation_table("", report.TABLE_HEADINGS, report.table_cells(rows))
    lines = table_lines(table)
    for claim in claims:
        lines += ["", f"{claim.verdict}: {claim.text} ({claim.source})", f"  {claim.figure}"]
    if baselines:
        headings, cells = report.baseline_headings(baselines), report.baseline_cells(baselines)
        lines += ["", *table_lines(explanation_table("", headings, cells))]
    typer.echo("\n".join(lines))
