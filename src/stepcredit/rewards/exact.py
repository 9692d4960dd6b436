"""The same answer, letter by letter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepcredit.rewards.base import Facts, Reward, fact
from stepcredit.rewards.boxed import READERS, answer_of
from stepcredit.rewards.registry import register_reward
from stepcredit.settings.fields import choice, text


@register_reward("exact")
@dataclass(frozen=True)
class Exact(Reward):
    """1 where the answer is the gold answer, but for the space around it, else 0.

    Example:
        >>> Exact(read="hash")(["7 + 5 = 12\\n#### 12"], [{"answer": 12}])
        [1.0]
    """

    answer: str = text("answer", "the fact that holds the gold answer")
    read: str = choice("whole", tuple(READERS), "where the answer stands in a response")

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """1 for each answer that is the gold answer, else 0."""
        golds = [str(fact(known, self.answer, row)).strip() for row, known in enumerate(facts)]
        answers = [answer_of(text, self.read) for text in texts]
        return [
            float(answer is not None and answer.strip() == gold)
            for answer, gold in zip(answers, golds, strict=True)
        ]
