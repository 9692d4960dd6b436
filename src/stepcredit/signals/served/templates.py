"""Jinja templates from settings: compiled in a sandbox, filled within bounds.

A template comes from a file of settings, which is trusted less than code. The sandbox keeps it from
Python's internals. The limits stop a template that would run for hours or fill the memory by
mistake, with an error of one line. They do not protect against a template that is written to
exhaust the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, Undefined, UndefinedError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from stepcredit.signals.served.secrets import shortened

LONGEST = 10_000_000
"""Most characters of a filled template, and of a text or list that an operator makes."""
MOST_TURNS = 100_000
"""Most turns of all loops and macros of a template together, each time it is filled."""
WIDEST = 1_000
"""The largest number that a filter of widths takes."""
COUNT = "_count_turn"
"""The function that each turn of a loop calls; no setting can name it."""
WIDTHS = {"indent": 1, "center": 1, "batch": 1, "slice": 1, "tojson": 2}
"""Filters that write as much as a number says, and how many arguments stand before it."""
PADDING = {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "translate"}
"""Methods of texts that write as much as a number says."""


class TemplateFailed(Exception):
    """A template that can't be filled.

    Args:
        reason: why, in one line.
        with_others: whether it may work with other values, for instance if an element is missing.
    """

    def __init__(self, reason: str, with_others: bool = False) -> None:
        super().__init__(reason)
        self.with_others = with_others


class _Method:
    """A method of a value: a template can call it, but it has no text.

    Its text in Python holds a memory address, so the filled template would differ every time.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", "it")
        raise TypeError(f"{name} is a method: call it with ()")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which no single operation makes something huge."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, trim_blocks=True)
        self.globals.clear()
        for name in ("random", "format"):  # each filling must give the same, and no padding
            del self.filters[name]
        self.filters = {
            name: _bounded(made, WIDTHS.get(name)) for name, made in self.filters.items()
        }

    def getattr(self, obj: Any, attribute: str) -> Any:
        return _without_text(super().getattr(obj, attribute))

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _without_text(super().getitem(obj, argument))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("a text takes no %")
        if _size(operator, left, right) > LONGEST:
            raise OverflowError(f"{operator} makes more than {LONGEST:,} characters or items")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        called = __obj.function if isinstance(__obj, _Method) else __obj
        if getattr(called, "__name__", None) in PADDING:
            raise SecurityError(f"{called.__name__} is not available")
        return super().call(__context, called, *args, **kwargs)


def _without_text(value: Any) -> Any:
    has_text = isinstance(value, Undefined | _Method) or not callable(value)
    return value if has_text else _Method(value)


def _size(operator: str, left: Any, right: Any) -> int:
    """Characters, items or digits that an operator makes, about; 0 where it makes a small thing."""
    sizes = [
        len(value) if isinstance(value, str | list | tuple) else None for value in (left, right)
    ]
    if operator == "+":
        return sum(size or 0 for size in sizes)
    if operator == "*" and sizes != [None, None]:
        return (sizes[0] or _whole(left)) * (sizes[1] or _whole(right))
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        return left.bit_length() * max(0, right) * 1_000  # ten thousand bits at most
    return 0


def _whole(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _bounded(made: Callable[..., Any], before: int | None) -> Callable[..., Any]:
    """A filter that gives lists in place of iterators, which have no text.

    Args:
        made: the filter.
        before: arguments before the first that may be a width; None: it takes none.
    """

    @wraps(made)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        widths = () if before is None else (*args[before:], *kwargs.values())
        if any(_whole(width) > WIDEST for width in widths):
            raise OverflowError(f"a number above {WIDEST:,}")
        found = made(*args, **kwargs)
        return list(found) if hasattr(found, "__next__") else found

    return bounded


@cache
def environment() -> ImmutableSandboxedEnvironment:
    """The sandbox that all templates share."""
    return _Sandbox()


@cache
def compiled(source: str) -> Template:
    """A template from its source, which counts the turns of its loops and macros.

    Raises:
        TemplateFailed: it does not parse.

    Example:
        >>> fill("{% for n in steps %}{{ n }};{% endfor %}", {"steps": [1, 2]})
        '1;2;'
    """
    try:
        tree = environment().parse(source)
        repeating: list[Any] = list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)))
        for node in repeating:
            call = nodes.Call(nodes.Name(COUNT, "load"), [], [], None, None)
            count = nodes.Output([call]).set_lineno(node.lineno)
            node.body.insert(0, count.set_environment(environment()))
        return environment().from_string(tree)
    except Exception as error:  # not only Jinja's: numbers and nesting may be too much for Python
        line = getattr(error, "lineno", None)
        where = f"line {line} does not parse" if line else "does not parse"
        raise TemplateFailed(f"{where}: {_said(error)}") from None


def fill(source: str, values: Mapping[str, Any]) -> str:
    """Fill a template with values.

    Args:
        source: the template. Values are inserted as text: template syntax in a value is not
            executed.
        values: by name.

    Raises:
        TemplateFailed: it does not parse, fails, writes too much, or takes too many turns.

    Example:
        >>> fill("{{ step }}?", {"step": "{{ 7 * 7 }}"})
        '{{ 7 * 7 }}?'
        >>> fill("{{ 1 / number }}", {"number": 0})
        Traceback (most recent call last):
        ...
        stepcredit.signals.served.templates.TemplateFailed: ZeroDivisionError: division by zero
    """
    template, turns, size, parts = compiled(source), 0, 0, []

    def count() -> str:
        nonlocal turns
        turns += 1
        if turns > MOST_TURNS:
            raise OverflowError(f"its loops take more than {MOST_TURNS:,} turns")
        return ""

    try:
        for part in template.generate({**values, COUNT: count}):
            parts.append(part)
            size += len(part)
            if size > LONGEST:
                raise OverflowError(f"it writes more than {LONGEST:,} characters")
    except Exception as error:  # whatever a template's expressions can raise
        absent = isinstance(error, UndefinedError) and "has no element" in str(error)
        wrong = isinstance(error, ValueError | LookupError)
        reason = _said(error)
        failed = TemplateFailed(reason, with_others=absent or wrong)
    else:
        return "".join(parts)
    raise failed


def _said(error: Exception) -> str:
    """The text of an error, in one line."""
    if isinstance(error, RecursionError):
        return "it nests too deeply, or calls itself"
    own = isinstance(error, TemplateError | OverflowError) and str(error)
    kind = "" if own else f"{type(error).__name__}: "
    return kind + shortened(str(error)) if str(error) else type(error).__name__
