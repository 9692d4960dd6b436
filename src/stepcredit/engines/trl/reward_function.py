"""`TRLReward`: a reward of stepcredit as a TRL reward function."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stepcredit.engines.gold_answers import refuse_unreadable
from stepcredit.errors import RolloutError
from stepcredit.rewards.base import Reward
from stepcredit.rewards.reward_registry import reward


class TRLReward:
    """A reward as a TRL reward function: one of `GRPOTrainer(reward_funcs=[...])`.

    The columns of the dataset are the facts, so the gold answer is the column that the reward's
    field `answer` names. What the reward counts, such as answers that timed out, is logged to the
    trainer's metrics as a share of the batch.

    A reward that refuses gold answers it can't read does so at the start, in `check_gold_answers`,
    which `StepCreditGRPOTrainer` calls. In the middle of a run such a completion's
    reward is None, which TRL leaves out of its sums, with one warning.

    Args:
        rule: a reward, or the name of one.
        settings: its fields, with a name.

    Raises:
        SettingError: an unknown reward or field, or a value out of range.

    Example:
        >>> scored = TRLReward("exact", answer="solution")
        >>> scored.__name__, scored(prompts=["6*7?"], completions=["42"], solution=["42"])
        ('exact', [1.0])
    """

    def __init__(self, rule: Reward | str, /, **settings: Any) -> None:
        self.rule = reward(rule, **settings) if isinstance(rule, str) else rule
        self.__name__ = self.rule.name
        self._lenient = self.rule.for_training()
        self._has_warned = False

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        """One reward per completion; None where the outcome is unknown.

        Args:
            prompts: not used; TRL passes them by name.
            completions: texts, or chats whose last assistant message is the response.
            columns: the columns of the dataset, each a list of one value per completion; other
                keywords that the trainer passes are not facts.

        Raises:
            RolloutError: a column is missing, or a fact that is no gold answer can't be used; it
                names the completion's row.
        """
        texts = [text_of_completion(completion) for completion in completions]
        values = {
            name: column
            for name, column in columns.items()
            if isinstance(column, list | tuple) and len(column) == len(texts)
        }
        facts = [{name: values[name][row] for name in values} for row in range(len(texts))]
        before = self._lenient.tally.copy()
        answer = getattr(self.rule, "answer", "")
        known = [row for row in range(len(texts)) if values.get(answer, texts)[row] is not None]
        found: list[float | None] = [None] * len(texts)
        rewards = self._known_rewards(known, texts, facts)
        if None in rewards:
            self._warn(facts[known[rewards.index(None)]])
        for row, value in zip(known, rewards, strict=True):
            found[row] = value
        self._log(columns.get("log_metric"), before, len(texts))
        return found

    def _known_rewards(
        self, rows: Sequence[int], texts: Sequence[str], facts: Sequence[dict[str, Any]]
    ) -> list[float | None]:
        """The rewards of some rows; an error names the completion's row."""
        try:
            return self._lenient([texts[row] for row in rows], [facts[row] for row in rows])
        except RolloutError as error:
            if error.row is None:
                raise
            raise RolloutError(error.reason, row=rows[error.row], field=error.field) from error

    def _warn(self, facts: Mapping[str, Any]) -> None:
        """Warn once of a row whose gold answer can't be read, unless the reward was set so."""
        if self._lenient is not self.rule and not self._has_warned:
            self._has_warned = True
            warnings.warn(_warning(self.__name__, self.rule, facts), stacklevel=3)

    def _log(self, log: Callable[[str, float], None] | None, before: Any, count: int) -> None:
        if log is None or not count:
            return
        for what, times in self._lenient.tally.items():
            name = what.replace(",", "").replace(" ", "_")
            log(f"{self.__name__}/{name}", (times - before[what]) / count)


def _warning(name: str, rule: Reward, facts: Mapping[str, Any]) -> str:
    faults = rule.unreadable_facts([facts])
    reason = f"{faults[0].field}: {faults[0].reason}" if 0 in faults else "unknown"
    return f"{name}: {reason}: the reward of this row, and of all like it, is None"


def check_gold_answers(functions: Iterable[Any], rows: Any) -> None:
    """Refuse a training set with gold answers that a reward can't read and does not leave unknown.

    Args:
        functions: the trainer's reward functions. Those that are no `TRLReward` are not asked.
        rows: the training set; one that can be read only once is not checked.

    Raises:
        EngineError: the first such answer and how many there are; it names the setting with which
            their outcomes are left unknown.
    """
    if not isinstance(getattr(rows, "column_names", None), list) or not hasattr(rows, "__len__"):
        return
    for function in functions:
        inner = getattr(function, "function", function)
        column = getattr(inner.rule, "answer", None) if isinstance(inner, TRLReward) else None
        if column in rows.column_names:
            refuse_unreadable(inner.rule, rows[column], f"reward_fields.{function.__name__}")


def text_of_completion(completion: Any) -> str:
    """The text of a completion: the completion itself, or its last assistant message.

    Example:
        >>> text_of_completion([{"role": "assistant", "content": "42"}])
        '42'
    """
    if isinstance(completion, str):
        return completion
    said = [message for message in completion if message.get("role") == "assistant"]
    content = said[-1].get("content") if said else None
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""
