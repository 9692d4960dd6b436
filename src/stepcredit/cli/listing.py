"""`stepcredit methods`, `signals`, `rewards`: each thing's equation, fields and source."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import MISSING, Field, fields
from typing import Any

import typer

import stepcredit as sc
from stepcredit.cli.options import Imports, import_modules
from stepcredit.rewards.reward_registry import rewards

_EQUATION = re.compile(r"\n\n((?: {4}\S.*\n?)+)")


def list_methods(imports: Imports) -> None:
    """List the methods: equation, fields with their defaults, source."""
    import_modules(imports)
    typer.echo(listing_text(sc.methods()))


def list_signals(imports: Imports) -> None:
    """List the signals: equation, fields with their defaults, source."""
    from stepcredit.signals.signal_registry import signals

    import_modules(imports)
    typer.echo(listing_text(signals()))


def list_rewards(imports: Imports) -> None:
    """List the rewards: equation, fields with their defaults, source."""
    import_modules(imports)
    typer.echo(listing_text(rewards()))


def listing_text(classes: dict[str, type[Any]]) -> str:
    """One paragraph of text per class."""
    return "\n\n".join(describe_class(name, cls) for name, cls in classes.items())


def describe_class(name: str, cls: type[Any]) -> str:
    """A method, signal or reward as a few lines of text."""
    text = inspect.getdoc(cls) or ""
    source = re.search(r"^Source: (.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    lines = [f"{name}  {text.partition(chr(10))[0]}"]
    lines += [f"    {line}" for line in equation_of(cls, text).splitlines()]
    declared = [field for field in fields(cls) if field.init and not callable(field.default)]
    rows = [
        (field.name, shown_default(field), field.metadata.get("about", "")) for field in declared
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    lines += [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]
    if source:
        lines.append(f"  Source: {' '.join(source[1].split())}")
    return "\n".join(lines)


def equation_of(cls: type[Any], text: str) -> str:
    """A class's equation: its attribute `equation`, or the first indented lines of its docstring.

    Example:
        >>> equation_of(object, "One line.\\n\\n    s = 1\\n\\nMore.")
        's = 1'
    """
    own: str = getattr(cls, "equation", "")
    found = _EQUATION.search(text)
    return own or (inspect.cleandoc(found[1]) if found else "")


def shown_default(declared: Field[Any]) -> str:
    """A field's default, as one would write it after `--set`."""
    if declared.default is not MISSING:
        value = declared.default
    elif declared.default_factory is not MISSING:
        value = declared.default_factory()
    else:
        return "(required)"
    bare = isinstance(value, str) and value and value.isprintable()
    return value if bare else json.dumps(value, default=repr)
