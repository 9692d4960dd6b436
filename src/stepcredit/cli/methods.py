"""`stepcredit methods`: each with its equation, fields, defaults and source."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

import typer

from stepcredit.cli.options import Imports, import_modules

if TYPE_CHECKING:
    from stepcredit.credit import Estimator


def methods(imports: Imports = []) -> None:  # noqa: B006
    """List the methods: equation, fields with their defaults, source."""
    from stepcredit.credit import methods as registered

    import_modules(imports)
    typer.echo("\n\n".join(described(name, cls) for name, cls in registered().items()))


def described(name: str, cls: type[Estimator]) -> str:
    """A method as a few lines of text."""
    text = inspect.getdoc(cls) or ""
    source = re.search(r"^Source: (.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    lines = [f"{name}  {text.partition(chr(10))[0]}"]
    lines += [f"    {line}" for line in cls.equation.splitlines()]
    rows = [(f.name, shown_default(f), f.metadata.get("about", "")) for f in fields(cls)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines += [f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows]
    if source:
        lines.append(f"  Source: {' '.join(source[1].split())}")
    return "\n".join(lines)


def shown_default(declared: Field[Any]) -> str:
    """A field's default, as `--set` would take it."""
    if declared.default is not MISSING:
        value = declared.default
    elif declared.default_factory is not MISSING:
        value = declared.default_factory()
    else:
        return "(required)"
    return value if isinstance(value, str) else json.dumps(value, default=repr)
