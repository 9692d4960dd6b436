"""What every written page is made with: jinja2's environment, and matplotlib's drawings as SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any

_NOISE = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->", re.DOTALL)
_SIZE = re.compile(r'(<svg[^>]*?) width="[^"]*pt" height="[^"]*pt"')


def page_environment(
    templates: Path, filters: Mapping[str, Callable[..., Any]], *, escapes: bool = True
) -> Any:
    """The jinja2 environment of a page: an unknown name is an error, and values are escaped.

    Args:
        templates: the folder of the templates.
        filters: the page's own filters by name.
        escapes: whether values become text of HTML; False for Markdown.

    Example:
        >>> page = page_environment(Path("."), {"twice": lambda x: 2 * x})
        >>> page.from_string("{{ a | twice }}").render(a="<b>")
        '&lt;b&gt;&lt;b&gt;'
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=escapes,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment


def svg_drawing(width: float, height: float) -> Any:
    """An empty figure of matplotlib that `svg_element` can save, without a window.

    Args:
        width, height: inches.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(drawing)
    return drawing


def svg_element(drawing: Any, title: str) -> str:
    """A figure of matplotlib as an element that scales with the page, the same on every run.

    Args:
        drawing: of `svg_drawing`.
        title: what a screen reader says of the picture; it is escaped.

    Example:
        >>> element = svg_element(svg_drawing(1, 1), "a < b")
        >>> element.startswith('<svg role="img" aria-label="a &lt; b"'), "<metadata" in element
        (True, False)
    """
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        drawing.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    element = text.getvalue()
    element = _NOISE.sub("", element[element.index("<svg") :])
    element = _SIZE.sub(r"\1", element, count=1)
    return element.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
