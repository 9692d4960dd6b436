"""reasoning-gym's own graders as a reward, contained: some raise, some evaluate what they read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.requires import require
from stepcredit.rewards.base import Facts, Reward
from stepcredit.rewards.boxed import READERS, answer_of
from stepcredit.rewards.letters import BAD_GOLD, RIGHT, TIMED_OUT
from stepcredit.rewards.registry import register_reward
from stepcredit.rewards.workers import shared_pool
from stepcredit.settings.fields import choice, number, text, whole

LONGEST = 10_000
"""Characters of an answer that is still graded."""


@register_reward("reasoning-gym")
@dataclass(frozen=True)
class ReasoningGym(Reward):
    """1 where the data set's own grader gives the answer at least the threshold, else 0.

    Graders run in worker processes with a limit of wall clock. One that raises has been given a
    wrong answer. Where its module evaluates text as code, an answer that calls anything but
    elementary functions is wrong and is not handed to it.

    Raises:
        RolloutError: an entry that is no reasoning-gym row, or of an unknown data set.
        MissingExtra: reasoning-gym is not installed.

    Source: reasoning-gym 0.1.25. Differs: partial scores below the threshold are 0.
    """

    entry: str = text(
        "entry", "the fact that holds the data set's row; if absent, the facts are it"
    )
    dataset: str | None = text(None, "the data set's name; null: the row's metadata.source_dataset")
    read: str = choice("answer-tag", tuple(READERS), "where the answer stands in a response")
    threshold: float = number(1.0, "the least score that counts as right", above=0)
    limit: float = number(5.0, "seconds one answer may take to grade", above=0)
    workers: int | None = whole(
        None, "grading processes; null: one a CPU", at_least=1, optional=True
    )

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """1 for each right answer, else 0."""
        require("gym", "reasoning_gym")
        entries = [
            self._asked(known.get(self.entry, known), row) for row, known in enumerate(facts)
        ]
        answers = [answer_of(text, self.read) for text in texts]
        given = [row for row, answer in enumerate(answers) if answer and len(answer) <= LONGEST]
        pairs = [(answers[row] or "", entries[row]) for row in given]
        letters = shared_pool("stepcredit.rewards.gym_grader", self.workers).verdicts(
            pairs, self.limit
        )
        if BAD_GOLD in letters:
            row = given[letters.index(BAD_GOLD)]
            name = json.loads(entries[row])["dataset"]
            raise RolloutError(f"reasoning-gym has no data set {name!r}", row=row, field=self.entry)
        self.tally["timed out"] += letters.count(TIMED_OUT)
        self.tally["no answer"] += sum(not answer for answer in answers)
        found = dict.fromkeys(range(len(texts)), 0.0)
        found.update(zip(given, (float(letter == RIGHT) for letter in letters), strict=True))
        return list(found.values())

    def _asked(self, entry: Any, row: int) -> str:
        """The entry as the worker takes it."""
        good = isinstance(entry, Mapping) and "answer" in entry
        metadata = entry.get("metadata") if good else None
        name = self.dataset or (metadata or {}).get("source_dataset")
        if not good or not isinstance(name, str):
            reason = "expected a row of reasoning-gym: answer, metadata with source_dataset"
            raise RolloutError(reason, row=row, field=self.entry)
        return json.dumps({"dataset": name, "entry": dict(entry), "threshold": self.threshold})
