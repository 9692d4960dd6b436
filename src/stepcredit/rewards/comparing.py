"""Compares parsed answers: numbers to their last digit, lists part by part, the rest symbolically.

It runs in a grading process, where sympy and math-verify are imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import sympy
from math_verify import verify
from math_verify.grader import is_assignment_relation, take_first_relation, take_last_relation

_DIGITS = 50
"""Digits to which two exact numbers are compared at first, and..."""
_MORE_DIGITS = 1_000
"""...digits to which they must agree."""
_PLACES = 6
"""Places to which a decimal must agree with a number that it rounds..."""
_SHARE = sympy.Rational(1_000_001, 10**11)
"""...and the largest difference as a share of that number: five digits."""
_MOST_COMPARED = 20
_PERCENT = sympy.UnevaluatedExpr(sympy.Rational(1, 100))
_PLAIN = (
    sympy.Add, sympy.Mul, sympy.Pow, sympy.Number, sympy.NumberSymbol, sympy.Symbol,
    sympy.exp, sympy.log, sympy.Abs, sympy.sin, sympy.cos, sympy.tan, sympy.cot, sympy.sec,
    sympy.csc, sympy.asin, sympy.acos, sympy.atan, sympy.sinh, sympy.cosh, sympy.tanh,
    sympy.factorial, sympy.binomial, type(sympy.I), sympy.UnevaluatedExpr,
)  # fmt: skip
_POINTS = (
    ("0.7310585786", "1.8175744761", "2.6457513111", "0.3678794412"),
    ("-1.3247179572", "0.9159655941", "-0.5671432904", "2.2360679775"),
    ("3.3598856662", "-0.6434105463", "1.2020569032", "-1.7320508076"),
    ("0.2614972128", "0.6627434193", "0.1149420449", "0.4142135624"),
    ("-2.5029078751", "-4.6692016091", "-0.2078795764", "-0.8346268417"),
    ("1.4513692349", "0.5822405265", "4.1327313541", "1.1319882488"),
)
"""Values of variables at which two expressions are compared."""


def same_value(gold: Any, answer: Any) -> bool:
    """Whether two parsed answers are equal.

    Numbers are compared exactly; if one has a decimal point, to six places and five digits. p
    percent equals p as well as p / 100; against a number without percent of at most 1, only the
    latter. Lists are compared part by part, tuples in order. Expressions with variables must agree
    at every one of six points at which both are real.

    Example:
        >>> tiny, third = sympy.Rational(1, 10**20), sympy.Rational(1, 3)
        >>> same_value(tiny, tiny / 10), same_value(third, sympy.Float("0.333333"))
        (False, True)
        >>> x = sympy.Symbol("x", real=True)
        >>> same_value(sympy.sqrt(1 / x), 1 / sympy.sqrt(x)), same_value(sympy.sqrt(x**2), x)
        (True, False)
    """
    if _are_sets_of_two_names(gold, answer):
        return False
    gold, answer = _plain_assignment(gold), _plain_assignment(answer)
    if (matched := _same_assignment(gold, answer)) is not None:
        return matched
    gold, answer = _as_set(gold, answer), _as_set(answer, gold)
    parts, others = _parts(gold), _parts(answer)
    if parts is not None and others is not None and parts[0] == others[0]:
        return _same_parts(parts[1], others[1], ordered=parts[0] != "set")
    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr):
        return _same_expression(gold, answer)
    if parts is not None and parts[0] == "set" and isinstance(answer, sympy.Expr):
        return bool(parts[1]) and all(same_value(part, answer) for part in parts[1])
    if others is not None and others[0] == "set" and isinstance(gold, sympy.Expr):
        return bool(others[1]) and all(same_value(gold, other) for other in others[1])
    if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        return _same_equation(gold, answer)
    return _verified(gold, answer)


def _same_equation(gold: sympy.Eq, answer: sympy.Eq) -> bool:
    """Whether one equation is a multiple of the other, or both have the same solutions.

    math-verify takes two equations without a solution that sympy finds for the same one.
    """
    difference = _same_expression(gold.lhs - gold.rhs, answer.lhs - answer.rhs)
    if difference or _same_expression(gold.lhs - gold.rhs, answer.rhs - answer.lhs):
        return True
    return _verified(gold, answer) and bool(sympy.solve(gold, gold.free_symbols))


def _as_set(value: Any, other: Any) -> Any:
    """The union of the sets that listed inequalities are, if the other answer is a set."""
    is_list = isinstance(value, sympy.FiniteSet) and not isinstance(other, sympy.FiniteSet)
    if not is_list or not isinstance(other, sympy.Set):
        return value
    parts = list(getattr(value, "_unsorted_args", value.args))
    if not all(isinstance(part, sympy.core.relational.Relational) for part in parts):
        return value
    with suppress(Exception):
        return sympy.Union(*(part.as_set() for part in parts))
    return value


def _verified(gold: Any, answer: Any) -> bool:
    return bool(verify([gold], [answer], allow_set_relation_comp=True, timeout_seconds=None))


def _plain_assignment(value: Any) -> Any:
    """The last side of a chain `x = .. = 5` as `x = 5`; `-x = 5` as `x = -5`; `x \\in S` as S."""
    if isinstance(value, sympy.Eq) and isinstance(-value.lhs, sympy.Symbol):
        return sympy.Eq(-value.lhs, -value.rhs, evaluate=False)
    if not is_assignment_relation(value):
        return value
    name, last = take_first_relation(value).lhs, take_last_relation(value).rhs
    if isinstance(last, sympy.Set):
        return last
    return sympy.Eq(name, last, evaluate=False)


def _are_sets_of_two_names(gold: Any, answer: Any) -> bool:
    """Whether the two are `x \\in S` and `y \\in T`."""
    both = (gold, answer)
    if not all(isinstance(each, sympy.Eq) and isinstance(each.rhs, sympy.Set) for each in both):
        return False
    return str(gold.lhs) != str(answer.lhs)


def _same_assignment(gold: Any, answer: Any) -> bool | None:
    """The result where one side at least is `x = value`; None for others."""
    named, named_too = is_assignment_relation(gold), is_assignment_relation(answer)
    if named and named_too:
        return bool(str(gold.lhs) == str(answer.lhs) and same_value(gold.rhs, answer.rhs)) or (
            _verified(gold, answer) and gold.lhs != answer.lhs and gold.lhs == answer.rhs
        )
    if named and not isinstance(answer, sympy.core.relational.Relational | sympy.logic.And):
        return same_value(gold.rhs, answer)
    if named_too and not isinstance(gold, sympy.core.relational.Relational | sympy.logic.And):
        return same_value(gold, answer.rhs)
    return None


def _parts(value: Any) -> tuple[str, Sequence[Any]] | None:
    """The kind and parts of a list, tuple or matrix; None for others."""
    if isinstance(value, sympy.FiniteSet):
        return "set", list(getattr(value, "_unsorted_args", value.args))
    if isinstance(value, sympy.Tuple):
        return f"tuple of {len(value)}", list(value)
    if isinstance(value, sympy.MatrixBase):
        return f"matrix {value.shape}", value.flat()
    if isinstance(value, sympy.Interval):
        return f"interval {value.left_open} {value.right_open}", [value.start, value.end]
    return None


def _same_parts(golds: Sequence[Any], answers: Sequence[Any], *, ordered: bool) -> bool:
    """Whether each part has its equal; in order, or one to one in any order."""
    if ordered or _are_assignments(golds) != _are_assignments(answers):
        pairs = zip(golds, answers, strict=False)
        return len(golds) == len(answers) and all(same_value(*pair) for pair in pairs)
    golds, left = _distinct(golds), _distinct(answers)
    if len(golds) != len(left):
        return False
    for gold in golds:
        at = next((at for at, each in enumerate(left) if same_value(gold, each)), None)
        if at is None:
            return False
        del left[at]
    return True


def _distinct(parts: Sequence[Any]) -> list[Any]:
    """The parts, of equal values the first; a long list is not searched for equal values."""
    kept: list[Any] = []
    for part in dict.fromkeys(parts):
        if len(parts) > _MOST_COMPARED or not any(same_value(each, part) for each in kept):
            kept.append(part)
    return kept


def _are_assignments(parts: Sequence[Any]) -> bool:
    """Whether the parts give values to several variables."""
    named = [part.lhs for part in parts if is_assignment_relation(part) and hasattr(part, "lhs")]
    return len(set(named)) == len(parts) > 1


def _same_expression(gold: sympy.Expr, answer: sympy.Expr) -> bool:
    if gold == answer:
        return True
    if not _is_plain(gold) or not _is_plain(answer):
        return _verified(gold, answer)
    if _percent(gold) is not None or _percent(answer) is not None:
        return _same_percent(gold, answer)
    rounds = gold.has(sympy.Float) or answer.has(sympy.Float)
    exact, other = _exact(gold), _exact(answer)
    if exact == other:
        return True
    names = exact.free_symbols | other.free_symbols
    if not names:
        return _same_number(exact, other, rounds=bool(rounds))
    agrees = _agree_at_points(exact, other, sorted(names, key=str), rounds=bool(rounds))
    return _verified(gold, answer) if agrees is None else agrees


def _is_plain(value: sympy.Expr) -> bool:
    return all(isinstance(part, _PLAIN) for part in sympy.preorder_traversal(value))


def _exact(value: sympy.Expr) -> Any:
    """The value with fractions for decimals; i is the imaginary unit where no other name is."""
    floats = {part: sympy.Rational(str(part)) for part in value.atoms(sympy.Float)}
    found = value.xreplace(floats).doit()
    names = {name: sympy.Symbol(name.name) for name in found.free_symbols}
    if {name.name for name in names} == {"i"}:
        names = dict.fromkeys(names, sympy.I)
    found = found.xreplace(names).doit()
    return sympy.expand(found) if found.is_number and found.has(sympy.I) else found


def _percent(value: sympy.Expr) -> Any:
    """p of p percent; None for other numbers."""
    if not isinstance(value, sympy.Mul) or not value.has(_PERCENT):
        return None
    return value.xreplace({_PERCENT: sympy.Integer(1)})


def _same_percent(gold: sympy.Expr, answer: sympy.Expr) -> bool:
    percent, other = _percent(gold), _percent(answer)
    if other is None:
        return any(_same_expression(value, answer) for value in (percent, percent / 100))
    if percent is not None:
        return _same_expression(percent, other)
    is_share = gold.is_number and abs(_value(gold, _DIGITS)) <= 1
    return _same_expression(gold, other / 100) or (not is_share and _same_expression(gold, other))


def _value(value: sympy.Expr, digits: int) -> sympy.Expr:
    return sympy.N(value, digits, maxn=digits + 1_000)


def _same_number(gold: sympy.Expr, answer: sympy.Expr, *, rounds: bool) -> bool:
    """Whether two numbers are equal, or one is the other rounded."""
    if not rounds and gold.is_Rational and answer.is_Rational:
        return bool(gold == answer)
    first, second = _value(gold, _DIGITS), _value(answer, _DIGITS)
    if not (first.is_finite and second.is_finite):
        return False
    difference, size = abs(first - second), max(abs(first), abs(second))
    if rounds:
        is_close = difference <= _SHARE * abs(first)
        return bool(is_close and first.round(_PLACES) == second.round(_PLACES))
    if difference > size * sympy.Rational(1, 10 ** (_DIGITS - 10)):
        return bool(size < sympy.Rational(1, 10**900)) and _verified(gold, answer)
    first, second = _value(gold, _MORE_DIGITS), _value(answer, _MORE_DIGITS)
    least = size * sympy.Rational(1, 10 ** (_MORE_DIGITS - 20))
    return bool(abs(first - second) <= least)


def _agree_at_points(
    gold: sympy.Expr, answer: sympy.Expr, names: Sequence[sympy.Symbol], *, rounds: bool
) -> bool | None:
    """Whether two expressions agree wherever both are real; None if that tells too little."""
    if len(names) > 12:
        return None
    agreed = 0
    for point in _POINTS:
        given = {name: sympy.Rational(point[at % 4]) + at // 4 for at, name in enumerate(names)}
        first, second = (_at(value, given) for value in (gold, answer))
        if first is None or second is None:
            if (first is None) != (second is None):
                return False
            continue
        if not _same_number(first, second, rounds=rounds):
            return False
        agreed += 1
    return True if agreed >= 3 else None


def _at(value: sympy.Expr, given: dict[sympy.Symbol, sympy.Rational]) -> sympy.Expr | None:
    """The value at a point to many digits; None if it is not real there."""
    with suppress(ValueError, TypeError, ZeroDivisionError):
        found = sympy.N(value.xreplace(given), _MORE_DIGITS + 50)
        if found.is_real and found.is_finite:
            return found
    return None
