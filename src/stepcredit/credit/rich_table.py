"""Tables of rich, as plain lines of text. Nothing else in this package imports rich."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDEST = 1_000_000
"""Characters per line at which a table is laid out: wider than any table."""


def explanation_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose first column is aligned to the left and all others to the right."""
    table = Table(title=literal(title), title_justify="left", box=None, pad_edge=False)
    for column, heading in enumerate(headings):
        table.add_column(literal(heading), justify="right" if column else "left")
    for row in rows:
        table.add_row(*map(literal, row))
    return table


def table_lines(table: Table) -> list[str]:
    """The lines of a table, so wide that no cell is cut or wrapped."""
    console = Console(width=WIDEST, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def literal(text: str) -> Text:
    """Text that rich prints character by character: no markup, no control characters.

    Example:
        >>> print(literal("[b]x\\n"))
        [b]x\\n
    """
    return Text("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))
