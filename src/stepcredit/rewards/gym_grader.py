"""A reasoning-gym grader in a worker process, with what it may evaluate limited."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from stepcredit.rewards.letters import BAD_GOLD, RIGHT, WRONG

_EVALUATES = ("eval(", "exec(", "parse_expr(", "sympify(")
_FUNCTIONS = re.compile(r"\b(?:a?(?:sin|cos|tan)h?|exp|log|ln|sqrt|[Aa]bs)$")
_OPERATORS = frozenset("+-*/^%([{,=<>|&~:")

PROCESS_PER_ITEM = True
"""Some of these graders evaluate text, and all are code of others: none can change another's."""
TRIAL = ("3", '{"dataset": "chain_sum", "entry": {"answer": "3"}, "threshold": 1.0}')


def ready() -> None:
    """Import what grading needs."""
    import reasoning_gym  # noqa: F401


def verdict(answer: str, entry: str) -> str:
    """Whether the data set's own grader gives the answer at least the threshold.

    A grader that raises has been given a wrong answer.

    Args:
        answer: what the response says.
        entry: JSON, `{"dataset": name, "entry": row of the data set, "threshold": least score}`.
    """
    asked = json.loads(entry)
    try:
        grader, evaluates = _grader(asked["dataset"])
    except ValueError:
        return BAD_GOLD
    if evaluates and not harmless(answer):
        return WRONG
    try:
        return RIGHT if grader(answer, asked["entry"]) >= asked["threshold"] else WRONG
    except Exception:
        return WRONG


@cache
def _grader(name: str) -> tuple[Callable[[str, Any], float], bool]:
    """The data set's grader, and whether its module evaluates text as code."""
    from reasoning_gym import get_score_answer_fn

    grader = get_score_answer_fn(name)
    source = inspect.getsource(sys.modules[type(grader.__self__).__module__])  # type: ignore[attr-defined]
    return grader, any(call in source for call in _EVALUATES)


def harmless(answer: str) -> bool:
    """Can the answer be evaluated without calling anything but elementary functions?

    Every opening parenthesis must follow an operator or such a function's name: what is not called
    does not act. Escapes and comments, which could hide what is called, are no part of an answer.

    Example:
        >>> harmless("(1 + 2)*sin(x)"), harmless("__import__('os')"), harmless("[open][0]('f')")
        (True, False, False)
    """
    if "__" in answer or "\\" in answer or "#" in answer:
        return False
    befores = [before.rstrip() for before in answer.split("(")[:-1]]
    return all(
        not before or before[-1] in _OPERATORS or _FUNCTIONS.search(before) for before in befores
    )
