"""For each reasoning-gym grader: the texts it evaluates as code, and further conditions.

Every `score_answer` of version `VERSION` was reviewed, with all that it calls. A data set that the
table does not name is refused: nobody has reviewed its grader.
"""

from __future__ import annotations

import ast
import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from stepcredit.rewards.gym_grammar import Expressions, Grammar, Literals, Texts

VERSION = "0.1.25"
"""The version of reasoning-gym for which the table holds."""

COMPOSITE = "composite"
"""The data set that mixes others: each of its rows names the one that it comes from."""

Condition = Callable[[str, Mapping[str, Any]], bool]


def _anything(answer: str, entry: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """The conditions under which a data set's grader may get rows and answers.

    Args:
        answer: the grammar of answers that the grader evaluates; None if it does not evaluate them.
        fields: the grammars of those fields of a row that the grader evaluates, by their path,
            such as `metadata.integrand`.
        also: a further condition on the answer, given the answer and the row, for graders that
            accept some wrong answers.
        tuples: the keys of the metadata whose lists the grader compares as tuples.
    """

    answer: Grammar | None = None
    fields: Mapping[str, Grammar] = field(default_factory=dict)
    also: Condition = _anything
    tuples: tuple[str, ...] = ()

    def refused_field(self, entry: Mapping[str, Any]) -> str | None:
        """Path of the first field that is no text or must not be evaluated; None if all pass."""
        for path, grammar in self.fields.items():
            value = _value_at(entry, path)
            if not isinstance(value, str) or not grammar.approves(value):
                return path
        return None

    def lets_through(self, answer: str, entry: Mapping[str, Any]) -> bool:
        """Whether the grader may get the answer. The row must have no refused field.

        An answer equal to the row's answer has already passed the grammar of the row.
        """
        if self.answer is None or self.answer.approves(answer):
            return True
        return "answer" in self.fields and answer == entry["answer"]

    def restore(self, entry: dict[str, Any]) -> None:
        """Turn the lists that were tuples before the row became JSON into tuples again."""
        for key in self.tuples:
            entry["metadata"][key] = _as_tuples(entry["metadata"][key])


def rule_of(name: str) -> Rule | None:
    """The rule of a data set; None if the table does not name it.

    Example:
        >>> rule_of("countdown").answer.approves("(1 + 2)*3"), rule_of("of_mine")
        (True, None)
    """
    return _EVALUATING.get(name) or (_PLAIN_RULE if name in _PLAIN else None)


def names() -> frozenset[str]:
    """The names of all data sets in the table."""
    return _PLAIN.union(_EVALUATING)


def _value_at(entry: Any, path: str) -> Any:
    for key in path.split("."):
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return entry


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _has_no_letter_n(answer: str, entry: Mapping[str, Any]) -> bool:
    """Needed because the grader gives NaN the score of the right answer."""
    return "n" not in answer.lower()


def _are_finite(answer: str, entry: Mapping[str, Any]) -> bool:
    """Needed because the grader treats NaN as close to every number. Reads answers as it does."""
    return all(math.isfinite(float(number)) for number in json.loads(answer.replace("'", '"')))


def _is_rows_answer(answer: str, entry: Mapping[str, Any]) -> bool:
    """Needed because the grader only compares whether both texts are empty."""
    return answer.strip().lower() == entry["answer"].strip().lower()


def _uses_rows_numbers(answer: str, entry: Mapping[str, Any]) -> bool:
    """Needed because the grader does not check which numbers the row gives."""
    used = [int(number) for number in re.findall("[0-9]+", answer)]
    return sorted(used) == sorted(entry["metadata"]["numbers"])


def _makes_24(answer: str, entry: Mapping[str, Any]) -> bool:
    """Needed because the grader drops decimals, so that it accepts 24.5."""
    return (
        _uses_rows_numbers(answer, entry) and _exact(ast.parse(answer.strip(), mode="eval")) == 24
    )


_OPERATIONS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_LARGEST_POWER = 64


def _exact(tree: ast.AST) -> Fraction | None:
    """The value of a calculation with whole numbers.

    None if it divides by zero, or if an exponent is large or not a whole number.
    """
    match tree:
        case ast.Expression(body=body):
            return _exact(body)
        case ast.Constant(value=int(whole)):
            return Fraction(whole)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = _exact(operand)
            return None if value is None else -value
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATIONS:
            first, second = _exact(left), _exact(right)
            if first is None or second is None or not _is_exact(first, sign, second):
                return None
            return _OPERATIONS[type(sign)](first, second)
    return None


def _is_exact(first: Fraction, sign: ast.operator, second: Fraction) -> bool:
    if isinstance(sign, ast.Div):
        return second != 0
    if isinstance(sign, ast.Pow):
        small = second.denominator == 1 and abs(second) <= _LARGEST_POWER
        return small and (first != 0 or second >= 0)
    return True


def _is_near(answer: str, entry: Mapping[str, Any]) -> bool:
    """Needed because the grader accepts a prefix of the row's answer, such as 0."""
    texts = (answer, entry["answer"])
    value, own = (float(Fraction(text.replace(",", ""))) for text in texts)
    return abs(value - own) <= 1e-4


def _is_not_next_to_minus_one(answer: str, entry: Mapping[str, Any]) -> bool:
    """Needed because the grader divides by the row's number: if that is -1, it accepts all."""
    own = entry["answer"].strip()
    return not own.startswith("-") or answer.strip() == own


_SUMS = Expressions("0-9+*/() -", (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow))
_FORMULA_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
_FORMULA = Expressions("A-Za-z0-9_.,+*/() -", _FORMULA_OPERATORS, names=True)
_FORMULA_OR_INTEGRAL = Expressions(
    "A-Za-z0-9_.,+*/() -", _FORMULA_OPERATORS, names=True, integrals=True
)
_SHIFTS = Expressions("0-9A-Fa-fXx+*<>() -", (ast.Add, ast.Sub, ast.Mult, ast.LShift, ast.RShift))
_VARIABLE = Texts(r"[A-MPRT-Za-z]|[a-z]_?[0-9]{1,3}")
_NUMBER_ROWS = Literals(Texts(r"[0-9 \n-]*"))

_PLAIN_RULE = Rule()

_EVALUATING: dict[str, Rule] = {
    # eval(answer), unless it equals the row's answer
    "binary_matrix": Rule(answer=_NUMBER_ROWS),
    "spiral_matrix": Rule(answer=_NUMBER_ROWS),
    "string_insertion": Rule(answer=Literals(Texts("[A-Z]*"))),
    "n_queens": Rule(answer=Literals(Texts(r"[_Q \n]*"))),
    # eval(entry["answer"]), if it is not JSON
    "number_sorting": Rule(fields={"answer": Literals()}, also=_are_finite),
    # eval(entry["metadata"]["problem"])
    "bitwise_arithmetic": Rule(fields={"metadata.problem": _SHIFTS}),
    # sympy.parse_expr(answer), which is Python's eval
    "countdown": Rule(answer=_SUMS),
    "puzzle24": Rule(answer=_SUMS, also=_makes_24),
    # and of the row's answer
    "polynomial_multiplication": Rule(answer=_FORMULA, fields={"answer": _FORMULA}),
    # and of the row's integrand, with the row's variable as a name
    "simple_integration": Rule(
        answer=_FORMULA, fields={"metadata.variable": _VARIABLE, "metadata.integrand": _FORMULA}
    ),
    "intermediate_integration": Rule(
        answer=_FORMULA,
        fields={
            "metadata.variable": _VARIABLE,
            "metadata.integrand": _FORMULA,
            "answer": _FORMULA_OR_INTEGRAL,
        },
    ),
    # these evaluate nothing, but need more than the grader's check
    "arc_agi": Rule(tuples=("output",)),
    "rearc": Rule(tuples=("output",)),
    "coin_flip": Rule(also=_is_near),
    "calendar_arithmetic": Rule(also=_is_not_next_to_minus_one),
    "complex_arithmetic": Rule(also=_has_no_letter_n),
    "game_of_life_halting": Rule(also=_is_rows_answer),
}

_COMPARE_TEXTS = """
    ab acre aiw arc_1d base_conversion basic_arithmetic bf binary_alternation caesar_cipher
    circuit_logic color_cube_rotation count_bits count_primes course_schedule dice emoji_mystery
    family_relationships figlet_font gcd isomorphic_strings knights_knaves largest_island lcm
    leg_counting letter_counting letter_jumble list_functions mahjong_puzzle manipulate_matrix maze
    modulo_grid needle_haystack number_filtering number_sequence palindrome_generation path_star
    ransom_note rotate_matrix rotten_oranges self_reference sentence_reordering simple_equations
    simple_geometry spell_backward string_manipulation string_splitting string_synthesis syllogism
    tsumego word_ladder word_sequence_reversal word_sorting zebra_puzzles
"""
_READ_NUMBERS = """
    advanced_geometry chain_sum cryptarithm decimal_arithmetic decimal_chain_sum
    fraction_simplification futoshiki gsm_symbolic kakurasu mini_sudoku number_format
    polynomial_equations pool_matrix power_function prime_factorization products rectangle_count
    sudoku survo time_intervals
"""
_READ_JSON = """
    boxnet codeio game_of_life graph_color group_anagrams jugs knight_swap palindrome_partitioning
"""
_READ_MOVES = """
    propositional_logic quantum_lock rubiks_cube rush_hour shortest_path sokoban tower_of_hanoi
"""
_PLAIN = frozenset((_COMPARE_TEXTS + _READ_NUMBERS + _READ_JSON + _READ_MOVES).split())
"""The data sets whose graders evaluate nothing: they compare texts; read numbers with `int`,
`float`, `Decimal`, `Fraction` or `numpy.loadtxt`; read JSON; or follow moves or a formula of
propositional logic with a separate parser."""
