"""Decides which texts a grader may evaluate: allow-lists, applied to Python's syntax tree.

A text is approved only if every part of it is on its grammar's list, and if no number that it
computes can be larger than `LARGEST`. The characters are limited first, so that Python's parser
and SymPy's, which rewrites the text token by token, see the same expression.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass

LONGEST = 20_000
"""Characters of a text that may be evaluated."""

LARGEST = 1 << 17
"""Bits of a number that may be computed."""

_LARGEST_EXPONENT = 14
"""Bits of an exponent, and of the number of places of a shift."""

_ELEMENTARY = re.compile(r"a?(?:sin|cos|tan|cot)h?|a?(?:sec|csc)|exp|log|ln|sqrt|cbrt|Abs|abs")
"""The functions that may be called, with one argument; `log` with a base too."""

_NAME = re.compile(r"[A-MPRT-Za-z]|[a-z]_?[0-9]{1,3}|pi")
"""Not N, O, Q and S, which are SymPy's own."""

_GLUED = re.compile(r"[0-9.][A-Za-z_]")
"""A number with a name behind it, such as `1e9`, `1_0`, `2j` or `1if`."""


class _Refused(Exception):
    """A part of the text is not on any list."""


@dataclass(frozen=True)
class Texts:
    """Texts that match a pattern as a whole, so that a grader cannot run them as code.

    Args:
        pattern: a regular expression.

    Example:
        >>> Texts("[A-E]*").approves("ABBA"), Texts("[A-E]*").approves("A()")
        (True, False)
    """

    pattern: str

    def approves(self, text: str) -> bool:
        """Whether a grader may evaluate the text."""
        return len(text) <= LONGEST and re.fullmatch(self.pattern, text) is not None


@dataclass(frozen=True)
class Literals:
    """Lists of numbers and strings, nested or not, and texts that match a pattern.

    Args:
        unparsed: the texts that are approved although they are not lists.

    Example:
        >>> rows = Literals(Texts("[0-9 ]*"))
        >>> [rows.approves(text) for text in ("[[0, 1], ['a']]", "0 1", "[f'{1}']", "[x]")]
        [True, True, False, False]
    """

    unparsed: Texts | None = None

    def approves(self, text: str) -> bool:
        """Whether a grader may evaluate the text."""
        if self.unparsed is not None and self.unparsed.approves(text):
            return True
        tree = _parsed(text, r"[A-Za-z0-9_.,'\"+\[\] \t\n-]*")
        return isinstance(tree, ast.List) and all(map(_is_literal, ast.walk(tree)))


@dataclass(frozen=True)
class Expressions:
    """Expressions of numbers, brackets and operators; with `names`, formulas too.

    The names are single letters, lower-case ones with an index (`x_1`), and `pi`. Only elementary
    functions are called. There, no letter may follow a digit, as in `1e5`.

    Args:
        characters: the allowed characters, as a character class of a regular expression.
        operators: the binary operators.
        names: whether variables, constants and functions are allowed.
        integrals: whether `Integral(formula, variable)` is allowed.

    Example:
        >>> sums = Expressions("0-9+*() -", (ast.Add, ast.Mult))
        >>> [sums.approves(text) for text in ("(1 + 2)*3", "1 - 2", "x", "open(1)", "9" * 50000)]
        [True, False, False, False, False]
    """

    characters: str
    operators: tuple[type[ast.operator], ...]
    names: bool = False
    integrals: bool = False

    def approves(self, text: str) -> bool:
        """Whether a grader may evaluate the text."""
        tree = _parsed(text, f"[{self.characters}]*", glued=not self.names)
        if tree is None:
            return False
        try:
            return self._bits(tree) <= LARGEST
        except (_Refused, RecursionError):
            return False

    def _bits(self, node: ast.expr) -> int:
        """An upper bound on the bits of the node's value; a variable counts as a small number.

        Raises:
            _Refused: a part is not on any list, or an exponent is too large.
        """
        match node:
            case ast.Constant(value=value):
                return _bits_of_number(value)
            case ast.Name(id=name) if self.names and _NAME.fullmatch(name):
                return 1
            case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
                return self._bits(operand)
            case ast.BinOp(left=left, op=op, right=right) if isinstance(op, self.operators):
                return _bits_of_result(op, self._bits(left), self._bits(right))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if self.names:
                return self._bits_of_call(name, args)
        raise _Refused

    def _bits_of_call(self, name: str, args: list[ast.expr]) -> int:
        if name == "Integral":
            allowed = self.integrals and len(args) == 2 and isinstance(args[1], ast.Name)
        else:
            most = 2 if name == "log" else 1
            allowed = _ELEMENTARY.fullmatch(name) is not None and 1 <= len(args) <= most
        if not allowed:
            raise _Refused
        return sum(map(self._bits, args)) + 1


Grammar = Texts | Literals | Expressions


def _parsed(text: str, pattern: str, glued: bool = False) -> ast.expr | None:
    """The expression's tree; None if the text is not an expression, is too long or does not match.

    Args:
        text: the text that a grader would evaluate.
        pattern: a regular expression that the text must match.
        glued: whether letters may follow digits, as in hexadecimal numbers.
    """
    text = text.strip(" \t\n")
    if len(text) > LONGEST or not re.fullmatch(pattern, text):
        return None
    if not glued and _GLUED.search(text):
        return None
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _is_literal(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=value):
            return type(value) in (int, float, str)
        case ast.UnaryOp(op=op, operand=ast.Constant(value=value)):
            return isinstance(op, ast.USub) and type(value) in (int, float)
    return isinstance(node, ast.List | ast.Load | ast.USub)


def _bits_of_number(value: object) -> int:
    if type(value) is int:
        return max(value.bit_length(), 1)
    if type(value) is float and math.isfinite(value):
        return int(value).bit_length() + 4
    raise _Refused


def _bits_of_result(op: ast.operator, left: int, right: int) -> int:
    """An upper bound on the bits of an operator's result, from the bounds of its operands."""
    if isinstance(op, ast.Pow | ast.LShift):
        if right > _LARGEST_EXPONENT:
            raise _Refused
        places = 1 << right
        return left * places if isinstance(op, ast.Pow) else left + places
    return left + right + 1
