"""The exact-match reward: the answer must equal the gold answer as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from stepcredit.errors import RolloutError
from stepcredit.rewards.base import Facts, Reward, needed_fact
from stepcredit.rewards.extract import READERS, answer_of
from stepcredit.rewards.reward_registry import register_reward
from stepcredit.settings.fields import choice, text


@register_reward("exact")
@dataclass(frozen=True)
class Exact(Reward):
    """1 if the answer equals the gold answer, apart from surrounding space, else 0.

    Raises:
        RolloutError: a gold answer is neither a string nor a number; the error carries the row.

    Example:
        >>> Exact(read="hash")(["7 + 5 = 12\\n#### 12"], [{"answer": 12}])
        [1.0]
    """

    answer: str = text("answer", "the fact that holds the gold answer")
    read: str = choice("whole", tuple(READERS), "where the answer is in a response")

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """1 for each answer that equals the gold answer, else 0."""
        golds = [self._gold(known, row) for row, known in enumerate(facts)]
        answers = [answer_of(text, self.read) for text in texts]
        return [
            float(answer is not None and answer.strip() == gold)
            for answer, gold in zip(answers, golds, strict=True)
        ]

    def _gold(self, facts: Facts, row: int) -> str:
        """The gold answer as text. Other types than strings and numbers have no unique text."""
        value = needed_fact(facts, self.answer, row)
        good = isinstance(value, str | int | float) and not isinstance(value, bool)
        if not good or (isinstance(value, float) and not isfinite(value)):
            reason = f"expected a string or a number, got {str(value)[:80]}"
            raise RolloutError(reason, row=row, field=self.answer)
        return str(value).strip()
