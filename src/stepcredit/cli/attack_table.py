"""The tables that `stepcredit attack` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from stepcredit.cli.output import printable

if TYPE_CHECKING:
    from rich.table import Table

    from stepcredit.audit.attack.attack_report import AttackReport
    from stepcredit.audit.attack.earnings import EarnedChange

SCORE_HEADINGS = ("minimum", "mean", "sum")
ADVANTAGE_HEADINGS = ("total", "mean", "at the edit")


def change_cell(change: EarnedChange | None) -> str:
    """A mean change with its interval; "none" where nothing was measured.

    Example:
        >>> from stepcredit.audit.attack.earnings import EarnedChange
        >>> change_cell(EarnedChange(0.5, 0.25, 0.75, 8, 2)), change_cell(None)
        ('+0.500 [+0.250, +0.750]', 'none')
        >>> change_cell(EarnedChange(0.5, None, None, 4, 1))
        '+0.500'
    """
    if change is None:
        return "none"
    mean = _signed(change.mean)
    if change.low is None or change.high is None:
        return mean
    return f"{mean} [{_signed(change.low)}, {_signed(change.high)}]"


def print_attack(report: AttackReport, signal: str) -> None:
    """Print the changes of the scores, then a table per method, and what is exploitable.

    Args:
        report: what the attack found.
        signal: the signal's name, for the heading.
    """
    from stepcredit.credit.rich_table import table_lines

    lines = [
        f"change of the response's scores ({signal}), with 95 % intervals over "
        f"{report.groups} groups",
        *table_lines(_score_table(report)),
    ]
    for method in report.methods:
        lines += ["", f"change of the response's advantages under {method}"]
        lines += table_lines(_method_table(report, method))
    lines += ["", *_closing_lines(report)]
    typer.echo("\n".join(map(printable, lines)))


def _score_table(report: AttackReport) -> Table:
    table = _table("edit", "responses", *SCORE_HEADINGS)
    for earnings in report.earnings:
        cells = [change_cell(earnings.scores[name]) for name in SCORE_HEADINGS]
        table.add_row(earnings.edit.name, str(earnings.applied), *cells)
    return table


def _method_table(report: AttackReport, method: str) -> Table:
    table = _table("edit", *ADVANTAGE_HEADINGS, "verdict")
    for earnings in report.earnings:
        found: Mapping[str, EarnedChange | None] = earnings.advantages[method]
        cells = [change_cell(found[name]) for name in ADVANTAGE_HEADINGS]
        table.add_row(earnings.edit.name, *cells, earnings.verdict(method))
    return table


def _closing_lines(report: AttackReport) -> list[str]:
    """What is exploitable, which methods were left out, and where edits could not be applied."""
    lines = [f"{method}: {_closing_verdict(report, method)}" for method in report.methods]
    lines += [f"{method}: left out: {reason}" for method, reason in report.unrun.items()]
    for earnings in report.earnings:
        lines += [
            f"{earnings.edit.name}: not measured on {count:,} responses: {reason}"
            for reason, count in earnings.left_out.items()
        ]
    return lines


def _closing_verdict(report: AttackReport, method: str) -> str:
    """Which edits are exploitable; where there is none, how many are undecided."""
    from stepcredit.audit.attack.earnings import FEWEST_ATTACKED

    paid = report.exploitable(method)
    if paid:
        return f"{', '.join(paid)} {'are' if len(paid) > 1 else 'is'} exploitable"
    if report.groups < FEWEST_ATTACKED:
        return (
            f"undecided, with {report.groups} of the {FEWEST_ATTACKED} groups that a verdict needs"
        )
    undecided = sum(each.verdict(method) == "undecided" for each in report.earnings)
    rest = f" ({undecided} of {len(report.earnings)} are undecided)" if undecided else ""
    return f"no edit is exploitable{rest}"


def _table(*headings: str) -> Table:
    from rich.table import Table

    from stepcredit.credit.rich_table import literal

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        is_text = heading in ("edit", "verdict")
        table.add_column(literal(heading), justify="left" if is_text else "right")
    return table


def _signed(value: float) -> str:
    return f"{value + 0.0:+.3f}"
