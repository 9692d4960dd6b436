"""An extension of griffe: our docstrings in the dialect that the reference's builder reads.

`Example:` becomes `Examples:`, whose doctests are shown as code; `a, b: text` becomes an entry per
argument; and `Source: PAPER` is a paragraph with its word in bold. The default of a declared field
is the first argument of its declaration: `number(0.7, ...)` is shown as 0.7.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
SOURCE = re.compile(r"^( *)Source: ", re.MULTILINE)
SHARED = re.compile(r"^( +)((?:\w+, )+\w+): (.+(?:\n\1 +\S.*)*)$", re.MULTILINE)
DECLARED = {"declare", "number", "whole", "choice", "flag", "text", "composed"}
ARGUMENTS = re.compile(r"^( *)Args:\n(?:\1 +.*\n?|\n)+", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Show the default of a declared field in place of its declaration."""
        call = attr.value
        if isinstance(call, griffe.ExprCall) and str(call.function) in DECLARED and call.arguments:
            attr.value = call.arguments[0]


def rewritten(text: str) -> str:
    """A docstring in the builder's dialect.

    Example:
        >>> print(rewritten("Sum.\\n\\nArgs:\\n    a, b: numbers.\\n\\nSource: a paper."))
        Sum.
        <BLANKLINE>
        Args:
            a: numbers.
            b: numbers.
        <BLANKLINE>
        **Source:** a paper.
    """
    text = EXAMPLE.sub(r"\1Examples:", text)
    text = SOURCE.sub(r"\1**Source:** ", text)
    return ARGUMENTS.sub(lambda section: SHARED.sub(entries, section[0]), text)


def entries(found: re.Match[str]) -> str:
    """One entry per argument of a shared one."""
    indent, names, said = found.groups()
    return "\n".join(f"{indent}{name}: {said}" for name in names.split(", "))
