"""Grades maths answers against gold answers, by text if possible, else with math-verify."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import isfinite
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.requires import require
from stepcredit.rewards import serving
from stepcredit.rewards.answer_kinds import (
    answer_base,
    answer_letter,
    answer_letters,
    answer_option,
    answer_words,
    has_foreign_digits,
    is_nothing,
    too_large,
)
from stepcredit.rewards.answer_lists import listed_answer
from stepcredit.rewards.base import Facts, Reward, needed_fact
from stepcredit.rewards.boxes import boxed_answer, has_box
from stepcredit.rewards.commands import unknown_word
from stepcredit.rewards.extract import READERS, answer_of, last_line
from stepcredit.rewards.normalize import LONGEST, normalize_answer
from stepcredit.rewards.numerals import decimal_comma
from stepcredit.rewards.reward_registry import register_reward
from stepcredit.rewards.times_of_day import time_of_day
from stepcredit.rewards.workers import shared_pool
from stepcredit.settings.fields import choice, number, text, whole

_IDLE_SPACE = re.compile(r"\s+(?!\w)|(?<!\w)\s+")
_MOST_BITS = 3_300
"""Bits of a gold answer that is an integer: 993 digits, about as many as an answer may have."""
_PROBE = "7.2973525693"
"""An answer that no gold answer is."""
_PROBE_LIMIT = 20.0
_READ: dict[str, bool] = {}
"""Whether each gold answer that was checked can be read."""
_MOST_KEPT = 100_000
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
        (answer, gold): (_readable(answer), _readable(gold))
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
    if not expected or len(gold) > 4 * LONGEST:
        return Verdict.BAD_GOLD
    if answer is None or not plain or len(answer) > 4 * LONGEST:
        return Verdict.WRONG
    plain, expected = decimal_comma(answer) or plain, decimal_comma(gold) or expected
    if (same := _same_kind(answer, gold)) is None:
        same = _same_whole(plain, expected)
    if same is not None:
        return Verdict.RIGHT if same else Verdict.WRONG
    if too_large(expected) or unknown_word(expected) or r"\ldots" in expected:
        return Verdict.BAD_GOLD
    unread = too_large(plain) or has_foreign_digits(plain) or unknown_word(plain)
    return Verdict.WRONG if unread or r"\ldots" in plain else None


def _same_kind(answer: str, gold: str) -> bool | None:
    """Whether both are the same time, choice, or nothing, or words; None for other gold answers."""
    time, other = time_of_day(gold), time_of_day(answer)
    if time and other and (time.half or other.half or time.minute == 0):
        return time.matches(other)
    if (letter := answer_letter(gold)) is not None:
        return answer_option(answer) == letter
    if (letters := answer_letters(gold)) is not None and letters in re.sub(r"[^A-J]", "", gold):
        return answer_letters(answer) == letters
    nothing, none_too = is_nothing(gold), is_nothing(answer)
    if nothing is not None and none_too is not None:
        return not (nothing and none_too) or nothing == none_too
    if (words := answer_words(gold)) is not None:
        return words in (answer_words(answer), normalize_answer(answer).lower())
    return None


def _same_whole(plain: str, expected: str) -> bool | None:
    """Whether two whole numbers or texts are equal, or two numerals have other bases; or None."""
    if _WHOLE.fullmatch(plain) and _WHOLE.fullmatch(expected):
        return int(plain) == int(expected)
    if plain == expected:
        return True
    if answer_base(expected) and answer_base(plain) not in (None, answer_base(expected)):
        return False
    return None


def _readable(answer: str) -> str:
    return listed_answer(normalize_answer(answer))


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
        return repr(value).removesuffix(".0")
    if isinstance(value, list | tuple) and value:
        return ", ".join(gold_answer(part, row, field) for part in value)
    if not isinstance(value, str) or not value.strip():
        reason = f"expected a number, a string or a list of them, got {value!r}"
        raise RolloutError(reason, row=row, field=field)
    found = boxed_answer(value) if has_box(value) else last_line(value) or value.strip()
    if not found:
        raise RolloutError(f"its last box is cut off: {value[-80:]!r}", row=row, field=field)
    return found


def unreadable_golds(golds: Sequence[str], workers: int | None = None) -> set[str]:
    """Those gold answers that can't be read as maths: only the same text would be right.

    Example:
        >>> unreadable_golds(["1/2", "t(0,4]", "5"])
        {'t(0,4]'}
    """
    asked = [gold for gold in dict.fromkeys(golds) if gold not in _READ]
    verdicts = grade([_PROBE] * len(asked), asked, limit=_PROBE_LIMIT, workers=workers)
    if len(_READ) > _MOST_KEPT:
        _READ.clear()
    read = zip(asked, (verdict is not Verdict.BAD_GOLD for verdict in verdicts), strict=True)
    _READ.update(read)
    return {gold for gold in golds if not _READ.get(gold, True)}


@register_reward("maths")
@dataclass(frozen=True)
class Maths(Reward):
    r"""1 if a response's final answer equals the gold answer, else 0.

    The answer is searched after the thinking, whatever its marks (`after_thinking`): in the last
    box, with the boxes joined to it; in a response without a box, in its line `Answer: ..` or
    `The final answer is ..`. `tally` counts `timed out`, `no answer` and `gold answer unreadable`.

    Raises:
        RolloutError: a gold answer is missing, or cannot be read as maths; the error carries the
            row, and names the setting with which such rows are left unknown.

    Example:
        >>> Maths()([r"So \boxed{1/2}.", "So 1/2."], [{"answer": 0.5}, {"answer": 0.5}])
        [1.0, 0.0]
        >>> Maths(unreadable="unknown")([r"\boxed{4}"] * 2, [{"answer": "t(0,4]"}, {"answer": 4}])
        [None, 1.0]

    Source: math-verify 0.9; see `grade` for what differs.
    """

    answer: str = text("answer", "the fact that holds the gold answer")
    read: str = choice("any", tuple(READERS), "where the answer is in a response")
    limit: float = number(5.0, "seconds one answer may take to grade", above=0)
    unreadable: str = choice(
        "refuse",
        ("refuse", "unknown", "text"),
        "a gold answer that is missing or no maths: refuse it, leave the outcome unknown (null), "
        "or compare as text",
    )
    workers: int | None = whole(
        None, "grading processes; null: one per CPU", at_least=1, optional=True
    )

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float | None]:
        """1 for each right answer, else 0; None where the outcome is unknown."""
        if facts and not any(self.answer in known for known in facts):
            needed_fact(facts[0], self.answer, 0)
        unread = self.unreadable_facts(facts) if self.unreadable == "unknown" else {}
        known = [row for row in range(len(texts)) if row not in unread]
        golds = [gold_answer(needed_fact(facts[row], self.answer, row), row, self.answer)
                 for row in known]  # fmt: skip
        answers = [answer_of(texts[row], self.read) for row in known]
        verdicts = grade(answers, golds, limit=self.limit, workers=self.workers)
        if self.unreadable == "refuse" and Verdict.BAD_GOLD in verdicts:
            at = verdicts.index(Verdict.BAD_GOLD)
            error = self._fault(golds[at], known[at])
            reason = f"{error.reason} (unreadable=unknown would leave its outcome unknown)"
            raise RolloutError(reason, row=error.row, field=error.field)
        self._count(answers, verdicts, len(unread))
        found: list[float | None] = [None] * len(texts)
        for row, verdict in zip(known, verdicts, strict=True):
            found[row] = float(verdict is Verdict.RIGHT)
        return found

    def unreadable_facts(self, facts: Sequence[Facts]) -> dict[int, RolloutError]:
        """The rows whose gold answer is missing or can't be read as maths, with the reason."""
        faults: dict[int, RolloutError] = {}
        golds: dict[int, str] = {}
        for row, known in enumerate(facts):
            try:
                value = needed_fact(known, self.answer, row)
                golds[row] = gold_answer(value, row, self.answer)
            except RolloutError as error:
                faults[row] = error
        bad = unreadable_golds(list(golds.values()), self.workers)
        faults |= {row: self._fault(gold, row) for row, gold in golds.items() if gold in bad}
        return dict(sorted(faults.items()))

    def refused_facts(self, facts: Sequence[Facts]) -> dict[int, RolloutError]:
        """The unreadable ones, if this reward refuses them."""
        return self.unreadable_facts(facts) if self.unreadable == "refuse" else {}

    def for_training(self) -> Maths:
        """The same reward, which leaves the outcome unknown where it would refuse a gold answer."""
        return replace(self, unreadable="unknown") if self.unreadable == "refuse" else self

    def _fault(self, gold: str, row: int) -> RolloutError:
        reason = f"can't be read as maths: {gold[:80]!r}"
        return RolloutError(reason, row=row, field=self.answer)

    def _count(
        self, answers: Sequence[str | None], verdicts: Sequence[Verdict], unread: int
    ) -> None:
        self.tally["timed out"] += verdicts.count(Verdict.TIMED_OUT)
        self.tally["no answer"] += sum(not answer for answer in answers)
        if unread:
            self.tally[UNREADABLE] += unread


UNREADABLE = "gold answer unreadable, outcome unknown"
"""Name of the tally of rows that a reward leaves unknown."""
