"""Prints one response's tokens, coloured by their credit."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.console import Console
from rich.style import Style
from rich.text import Text

from stepcredit.cli.output import printable

if TYPE_CHECKING:
    from torch import Tensor

    from stepcredit.data.files.rows import Row

UNTRAINED = Style(dim=True)


def paint(row: Row, advantages: Tensor) -> None:
    """Print the response: green where the credit is above 0, red where it is below.

    Args:
        row: the response.
        advantages: one per trained token.
    """
    values = iter(advantages.tolist())
    mask = row.mask or [1] * row.length
    credit = [next(values) if trained else None for trained in mask]
    largest = max(abs(value) for value in credit if value is not None)
    text = Text()
    for piece, value in zip(printed_tokens(row, len(mask)), credit, strict=True):
        style = UNTRAINED if value is None else background(value, largest)
        text.append(visible(piece), style)
    console = Console(force_terminal=True, color_system="truecolor", no_color=False)
    console.print(text, soft_wrap=True)
    console.print(legend(largest, untrained=None in credit))


def printed_tokens(row: Row, count: int) -> list[str]:
    """One text per token of the response: its `tokens`; else the words or characters of its `text`,
    if their number is that of the tokens; else the tokens' indexes."""
    if "tokens" in row.fields:
        texts: list[str] = row.fields["tokens"]
        return texts
    text = row.fields.get("text", "")
    for parts in (re.findall(r"\s*\S+", text), list(text)):
        if len(parts) == count:
            return parts
    return [f" {index}" for index in range(count)]


def visible(piece: str) -> str:
    """A token's text with its line ends marked and control characters escaped."""
    return "↵\n".join(map(printable, piece.split("\n")))


def background(value: float, largest: float) -> Style:
    """Green above 0, red below 0; the further from 0, the stronger.

    Example:
        >>> background(-1.0, 2.0).bgcolor.triplet.hex
        '#960000'
    """
    if value == 0 or largest == 0:
        return Style()
    strength = 60 + round(180 * abs(value) / largest)
    rgb = f"rgb(0,{strength},0)" if value > 0 else f"rgb({strength},0,0)"
    ink = "black" if value > 0 and strength > 150 else "white"
    return Style(bgcolor=rgb, color=ink)


def legend(largest: float, *, untrained: bool) -> Text:
    """The meaning of the colours."""
    text = Text("\nadvantage ")
    for share in (-1.0, -0.5, 0.0, 0.5, 1.0):
        text.append(f" {share * largest:+.3g} ", background(share, 1.0))
    if untrained:
        text.append("  not trained", UNTRAINED)
    return text
