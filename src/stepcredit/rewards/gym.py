"""reasoning-gym's graders as a reward, run safely: some of them evaluate answers as code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from stepcredit.errors import MissingExtra, RolloutError
from stepcredit.requires import require
from stepcredit.rewards.base import Facts, Reward
from stepcredit.rewards.extract import READERS, answer_of
from stepcredit.rewards.gym_table import COMPOSITE, VERSION, rule_of
from stepcredit.rewards.reward_registry import register_reward
from stepcredit.rewards.serving import RIGHT, TIMED_OUT
from stepcredit.rewards.workers import shared_pool
from stepcredit.settings.fields import choice, number, text, whole

LONGEST = 10_000
"""Characters of an answer that is still graded."""

_WHAT_IS_RUN = "number, formula or list that the data set could hold"


@register_reward("reasoning-gym")
@dataclass(frozen=True)
class ReasoningGym(Reward):
    """1 if the data set's grader gives the answer at least the threshold, else 0.

    Graders run in worker processes with a time limit. An answer for which the grader raises an
    error is wrong. Some graders evaluate answers or fields of the row as code. Such a text is
    passed to them only if all its parts are on the data set's list, for example numbers, operators
    and elementary functions (`stepcredit.rewards.gym_table`). Otherwise an answer is wrong, and a
    row is an error. For some data sets an answer must meet a further condition, because the grader
    accepts some wrong answers.

    Raises:
        RolloutError: an entry is not a reasoning-gym row, belongs to an unknown data set, or has a
            field that its grader would run as code.
        MissingExtra: reasoning-gym is not installed, or its graders were not reviewed in this
            version.

    Source: reasoning-gym 0.1.25. Differs: partial scores below the threshold are 0; answers that
    would run code, NaN in two data sets, and answers to game_of_life_halting, puzzle24, coin_flip
    and calendar_arithmetic that don't fit the row are wrong.
    """

    entry: str = text(
        "entry", "the fact that holds the data set's row; if absent, the facts are the row"
    )
    dataset: str | None = text(None, "the data set's name; null: the row's metadata.source_dataset")
    read: str = choice("answer-tag", tuple(READERS), "where the answer is in a response")
    threshold: float = number(1.0, "the least score that counts as right", above=0)
    limit: float = number(5.0, "seconds one answer may take to grade", above=0)
    workers: int | None = whole(
        None, "grading processes; null: one per CPU", at_least=1, optional=True
    )

    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """1 for each right answer, else 0."""
        _require_reviewed_version()
        entries = [self._entry_json(known, row) for row, known in enumerate(facts)]
        answers = [answer_of(text, self.read) for text in texts]
        given = [row for row, answer in enumerate(answers) if answer and len(answer) <= LONGEST]
        pairs = [(answers[row] or "", entries[row]) for row in given]
        pool = shared_pool("stepcredit.rewards.gym_grader", self.workers)
        letters = pool.verdicts(pairs, self.limit)
        self.tally["timed out"] += letters.count(TIMED_OUT)
        self.tally["no answer"] += sum(not answer for answer in answers)
        found = dict.fromkeys(range(len(texts)), 0.0)
        found.update(zip(given, (float(letter == RIGHT) for letter in letters), strict=True))
        return list(found.values())

    def _entry_json(self, facts: Facts, row: int) -> str:
        """The entry as JSON for the worker."""
        entry = facts.get(self.entry, facts)
        name = self._dataset_of(entry)
        if name is None:
            reason = "expected a row of reasoning-gym: answer, metadata with source_dataset"
            raise RolloutError(reason, row=row, field=self.entry)
        rule = rule_of(name)
        if rule is None:
            reason = f"data set {name!r:.60} is not among those of reasoning-gym {VERSION}"
            raise RolloutError(f"{reason} whose graders were reviewed", row=row, field=self.entry)
        if path := rule.refused_field(entry):
            field = path if entry is facts else f"{self.entry}.{path}"
            reason = f"the grader of {name} would run it as code, and it is no {_WHAT_IS_RUN}"
            raise RolloutError(reason, row=row, field=field)
        request = {"dataset": name, "entry": dict(entry), "threshold": self.threshold}
        try:
            return json.dumps(request)
        except (TypeError, ValueError, RecursionError) as error:
            reason = f"cannot be written as JSON: {error}"
            raise RolloutError(reason, row=row, field=self.entry) from error

    def _dataset_of(self, entry: Any) -> str | None:
        """The name of the data set whose grader the entry needs; None if it is not an entry."""
        if not isinstance(entry, Mapping) or "answer" not in entry:
            return None
        if self.dataset not in (None, COMPOSITE):
            return self.dataset
        metadata = entry.get("metadata")
        name = metadata.get("source_dataset") if isinstance(metadata, Mapping) else None
        return name if isinstance(name, str) else None


def _require_reviewed_version() -> None:
    require("gym", "reasoning_gym")
    installed = version("reasoning_gym")
    if installed != VERSION:
        reason = (
            f"version {installed} is installed, but only the graders of {VERSION} were reviewed"
        )
        advice = f"for what they run as code: pip install reasoning_gym=={VERSION}"
        raise MissingExtra(f"{reason} {advice}", field="reasoning_gym")
