"""Grades maths answers against gold answers, by text if possible, else with math-verify."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.requires import require
from stepcredit.rewards import serving
from stepcredit.rewards.answer_kinds import (
    answer_base,
    answer_letter,
    answer_option,
    answer_words,
    has_foreign_digits,
    too_large,
)
from stepcredit.rewards.base import Facts, Reward, needed_fact
from stepcredit.rewards.extract import READERS, answer_of, last_box, last_line
from stepcredit.rewards.normalize import normalize_answer
from stepcredit.rewards.reward_registry import register_reward
from stepcredit.rewards.workers import shared_pool
from stepcredit.settings.fields import choice, number, text, whole

_IDLE_SPACE = re.compile(r"\s+(?!\w)|(?<!\w)\s+")
_MOST_BITS = 3_300
"""Bits of a gold answer that is an integer: 993 digits, about as many as an answer may have."""
_WHOLE = re.compile(r"[-+]?[0-9]{1,300}")


class Verdict(Enum):
    """The result of grading an answer; only `RIGHT` gives a reward."""

    RIGHT = serving.RIGHT
    WRONG = serving.WRONG
    TIMED_OUT = serving.TIMED_OUT
    """No verdict within the limit, or the answer killed the grading process."""
    BAD_GOLD = serving.BAD_GOLD
    """The gold answer can't be read as maths, and the answer is not the same text."""


def grade(
    answers: Sequence[str | None],
    golds: Sequence[str],
    *,
    limit: float = 5.0,
    workers: int | None = None,
) -> list[Verdict]:
    r"""Grade answers against gold answers, in parallel processes.

    An answer with the same text as the gold answer is right. Then, in this order: a gold answer
    that is a choice letter or consists of words is compared as text; whole numbers are compared as
    numbers; an answer that is too long or has too large powers is wrong; all others are graded by
    math-verify in a worker process, which is ended if a pair takes longer than the limit.

    Args:
        answers: the contents of the responses' boxes; None for a response without a box.
        golds: the gold answer of each response.
        limit: most seconds of wall clock per pair in a worker.
        workers: the most processes at once; None: one per CPU, at most 16.

    Returns:
        One verdict per pair, in order. An answer that takes too long is `TIMED_OUT`, and does not
        affect the others. May be called from any thread, and inside an event loop, which it
        blocks.

    Raises:
        MissingExtra: math-verify is not installed.
        SignalError: no worker process could be started.

    Example:
        >>> grade(["0.5", "2", None], [r"\frac{1}{2}", "3", "4"])
        [<Verdict.RIGHT: 'R'>, <Verdict.WRONG: 'W'>, <Verdict.WRONG: 'W'>]

    Source: math-verify 0.9. Differs: one box, not a set of all; words by text; bare letters after a
        number are variables, not units.
    """
    require("rewards", "math_verify")
    pairs = list(zip(answers, golds, strict=True))
    known = {pair: _by_text(*pair) for pair in pairs}
    undecided = {
        (answer, gold): (normalize_answer(answer), normalize_answer(gold))
        for (answer, gold), verdict in known.items()
        if verdict is None and answer is not None
    }
    if undecided:
        letters = shared_pool("stepcredit.rewards.grader", workers).verdicts(
            list(undecided.values()), limit
        )
        known.update(zip(undecided, map(Verdict, letters), strict=True))
    return [known[pair] or Verdict.WRONG for pair in pairs]


def _by_text(answer: str | None, gold: str) -> Verdict | None:
    """The verdict if comparing texts decides it, else None."""
    plain, expected = _squeezed(answer or ""), _squeezed(gold)
    if not expected:
        return Verdict.BAD_GOLD
    if answer is None or not plain or plain == expected:
        return Verdict.RIGHT if plain == expected else Verdict.WRONG
    letter, words = answer_letter(gold), answer_words(gold)
    if letter is not None:
        return Verdict.RIGHT if answer_option(answer) == letter else Verdict.WRONG
    if words is not None:
        same = words in (answer_words(answer), normalize_answer(answer).lower())
        return Verdict.RIGHT if same else Verdict.WRONG
    if _WHOLE.fullmatch(plain) and _WHOLE.fullmatch(expected):
        return Verdict.RIGHT if int(plain) == int(expected) else Verdict.WRONG
    if answer_base(expected) and answer_base(plain) not in (None, answer_base(expected)):
        return Verdict.WRONG
    if too_large(expected):
        return Verdict.BAD_GOLD
    return Verdict.WRONG if too_large(plain) or has_foreign_digits(plain) else None


def _squeezed(answer: str) -> str:
    """An answer from `normalize_answer`, without spaces that have no meaning."""
    return _IDLE_SPACE.sub("", " ".join(normalize_answer(answer).split()))


def gold_answer(value: Any, row: int, field: str) -> str:
    r"""A gold answer in the forms that data sets use: a number, a string, or a list of all answers.

    Of a string that is a whole solution, the answer is the last box, or the text after the last
    `####`.

    Raises:
        RolloutError: the value is none of these, or empty.

    Example:
        >>> gold_answer(27.0, 0, "answer"), gold_answer(["$1$", "$-1$"], 0, "answer")
        ('27', '$1$, $-1$')
        >>> gold_answer(r"so \boxed{7}", 0, "answer"), gold_answer("#### 8", 0, "answer")
        ('7', '8')
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value.bit_length() > _MOST_BITS:
            reason = f"an integer of {value.bit_length()} bits, more than {_MOST_BITS}"
            raise RolloutError(reason, row=row, field=field)
        return str(value)
    if isinstance(value, float) and isfinite(value):
        return f"{value:.0f}" if value.is_integer() else repr(value)
    if isinstance(value, list | tuple) and value:
        return ", ".join(gold_answer(part, row, field) for part in value)
    if not isinstance(value, str) or not value.strip():
        reason = f"expected a number, a string or a list of them, got {value!r}"
        raise RolloutError(reason, row=row, field=field)
    return last_box(value) or last_line(value) or value.strip()


@register_reward("maths")
@dataclass(frozen=True)
class Maths(Reward):
    r"""1 if a response's final answer equals the gold answer, else 0.

    The answer is searched after the thinking, i.e. after `</think>` if there is one. `tally` counts
    `timed out` and `no answer`.

    Raises:
        RolloutError: a gold answer is missing, or cannot be read as maths; the error carries the
            row.

    Example:
        >>> Maths()([r"So \boxed{1/2}.", "So 1/2."], [{"answer": 0.5}, {"answer": 0.5}])
        [1.0, 0.0]

    Source: math-verify 0.9; see `grade` for what differs.
    """

    answer: str = text("answer", "the fact that holds the gold answer")
    read: str = choice("boxed", tuple(READERS), "where the answer is in a response")
    limit: float = number(5.0, "seconds one answer may take to grade", above=0)
    unreadable: str = choice(
        "refuse", ("refuse", "text"), "a gold answer that is no maths: refuse, or compare as text"
    )
    workers: int | None = whole(
        None, "grading processes; null: one per CPU", at_least=1, optional=True
    )

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """1 for each right answer, else 0."""
        golds = [
            gold_answer(needed_fact(known, self.answer, row), row, self.answer)
            for row, known in enumerate(facts)
        ]
        answers = [answer_of(text, self.read) for text in texts]
        verdicts = grade(answers, golds, limit=self.limit, workers=self.workers)
        if self.unreadable == "refuse" and Verdict.BAD_GOLD in verdicts:
            row = verdicts.index(Verdict.BAD_GOLD)
            reason = f"math-verify can't read this gold answer: {golds[row][:80]!r}"
            raise RolloutError(reason, row=row, field=self.answer)
        self.tally["timed out"] += verdicts.count(Verdict.TIMED_OUT)
        self.tally["no answer"] += sum(not answer for answer in answers)
        return [float(verdict is Verdict.RIGHT) for verdict in verdicts]
