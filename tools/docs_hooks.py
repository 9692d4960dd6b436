"""Hooks of the documentation's build.

Equations become MathML, which browsers show by themselves. A line `[api: MODULE]` becomes the
reference of every public name of that module, so that the pages cannot fall behind the code.
"""

from __future__ import annotations

import html
import re
from importlib import import_module
from inspect import isclass, isfunction
from typing import Any

from latex2mathml.converter import convert

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
API = re.compile(r"^\[api: ([\w.]+)\]$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its `[api: MODULE]` lines written out.

    Args:
        markdown: the page's source.
    """
    return API.sub(lambda found: reference(found[1]), markdown)


def reference(module: str) -> str:
    """One directive of mkdocstrings per public class and function of a module."""
    public = import_module(module)
    names = [name for name in public.__all__ if is_documented(getattr(public, name))]
    return "\n\n".join(f"::: {module}.{name}" for name in names)


def is_documented(thing: object) -> bool:
    """Whether a public name is a class or a function, and no number or table."""
    return isclass(thing) or isfunction(thing)


def on_page_content(content: str, **_: Any) -> str:
    """The page with every equation as MathML.

    Args:
        content: the page's HTML, in which the extension `arithmatex` has marked the equations.
    """

    def rendered(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        return convert(html.unescape(found[2]).strip(), display=display)

    return EQUATION.sub(rendered, content)
