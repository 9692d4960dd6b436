"""The interface of every reward: texts and their facts in, one number per text out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from numbers import Real
from typing import Any, ClassVar, Literal

from stepcredit.errors import RolloutError
from stepcredit.settings.fields import check_fields

Facts = Mapping[str, Any]


class Reward(ABC):
    """A rule that gives each response one number. Rewards are frozen dataclasses.

    Call it with the responses' texts and the known facts of each response:
    `reward(texts, [{"answer": "42"}, ...])`.

    Example:
        >>> from stepcredit.rewards import reward
        >>> reward("exact")(["a b", "b"], [{"answer": "a b"}, {"answer": "a"}])
        [1.0, 0.0]
    """

    name: ClassVar[str]
    gives: ClassVar[Literal["outcome", "format"]] = "outcome"
    passing: float = 1.0
    """The smallest value of a format reward with which a response passes the gate."""
    tally: Counter[str]
    """Counts of events that a user should know of, such as `timed out`."""

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "tally", Counter())

    def __call__(
        self, texts: Sequence[str], facts: Sequence[Facts] | None = None
    ) -> list[float | None]:
        """One number per text, in order; None for an outcome that is unknown.

        Args:
            texts: the responses' texts, without special tokens.
            facts: the known facts of each text, by name; None if there are none.

        Raises:
            RolloutError: a text is not a string, a fact is missing or unusable, or a reward is not
                a finite number; the error carries the row.
        """
        known = [{}] * len(texts) if facts is None else facts
        if len(known) != len(texts):
            raise RolloutError(f"{len(texts)} texts, but facts of {len(known)}")
        for row, value in enumerate(texts):
            if not isinstance(value, str):
                raise RolloutError(f"expected a string, got {value!r}", row=row, field="text")
        return _checked(self.rewards(texts, known), len(texts), self)

    @abstractmethod
    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> Sequence[float | None]:
        """One number per text, in order. There are as many facts as texts.

        The outcome of a text may be None: unknown.
        """

    def unreadable_facts(self, facts: Sequence[Facts]) -> dict[int, RolloutError]:
        """The rows whose facts this reward can't use, each with the reason.

        It needs no responses, so files and trainers ask for it before they start.

        Args:
            facts: the known facts of each row, by name.
        """
        return {}

    def refused_facts(self, facts: Sequence[Facts]) -> dict[int, RolloutError]:
        """Those of `unreadable_facts` for which this reward would raise an error."""
        return {}

    def for_training(self) -> Reward:
        """This reward as trainers call it in the middle of a run.

        Where it would raise an error for a row's facts, its outcome is unknown instead.
        """
        return self


def _checked(values: Any, texts: int, rule: Reward) -> list[float | None]:
    """The values that a reward's `rewards` returned, checked to be one finite number per text.

    Outcomes may be None.

    Raises:
        RolloutError: the number of values is wrong, or a value is not a finite number.
    """
    try:
        found = values.tolist() if hasattr(values, "tolist") else list(values)
        count = len(found)
    except TypeError:
        raise RolloutError(f"the reward {rule.name} gives {values!r}, expected a list") from None
    if count != texts:
        raise RolloutError(f"the reward {rule.name} gives {count} values for {texts} texts")
    for row, value in enumerate(found):
        if value is None and rule.gives == "outcome":
            continue
        if not (isinstance(value, Real) and isfinite(value)):
            reason = f"the reward {rule.name} gives {value!r}, expected a finite number"
            raise RolloutError(reason, row=row)
    return found


def needed_fact(facts: Facts, name: str, row: int) -> Any:
    """A required fact of a response, by name; arrays as lists.

    Raises:
        RolloutError: the fact is absent or null.
    """
    value = optional_fact(facts, name)
    if value is None:
        raise RolloutError("missing: the reward needs it", row=row, field=name)
    return value


def optional_fact(facts: Facts, name: str) -> Any:
    """An optional fact of a response, by name; arrays as lists; None if it is absent or null."""
    value = facts.get(name)
    to_list = getattr(value, "tolist", None)
    return to_list() if to_list else value
