"""The face of every reward: texts and what is known of them in, one number a text out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from stepcredit.errors import RolloutError
from stepcredit.settings.fields import check_fields

Facts = Mapping[str, Any]


class Reward(ABC):
    """A rule that gives each response one number. Rewards are frozen dataclasses.

    Call it with the responses' texts and, for each, what is known of it:
    `reward(texts, [{"answer": "42"}, ...])`.

    Example:
        >>> from stepcredit.rewards import reward
        >>> reward("exact")(["a b", "b"], [{"answer": "a b"}, {"answer": "a"}])
        [1.0, 0.0]
    """

    name: ClassVar[str]
    gives: ClassVar[Literal["outcome", "format"]] = "outcome"
    tally: Counter[str]
    """What it came across so far that a person should know, such as `timed out`, and how often."""

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "tally", Counter())

    def __call__(self, texts: Sequence[str], facts: Sequence[Facts] | None = None) -> list[float]:
        """One number a text, in order.

        Args:
            texts: the responses' texts, without special tokens.
            facts: for each text what is known of it, by name; None: nothing.

        Raises:
            RolloutError: a text that is no string, a fact that is missing or can't be used; it
                carries the row.
        """
        known = [{}] * len(texts) if facts is None else facts
        if len(known) != len(texts):
            raise RolloutError(f"{len(texts)} texts, but facts of {len(known)}")
        for row, value in enumerate(texts):
            if not isinstance(value, str):
                raise RolloutError(f"expected a string, got {value!r}", row=row, field="text")
        return self.rewards(texts, known)

    @abstractmethod
    def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
        """One number a text, in order; as many facts as texts."""


def fact(facts: Facts, name: str, row: int) -> Any:
    """What is known of a response under a name; arrays as lists.

    Raises:
        RolloutError: it is absent or null.
    """
    value = optional_fact(facts, name)
    if value is None:
        raise RolloutError("missing: the reward needs it", row=row, field=name)
    return value


def optional_fact(facts: Facts, name: str) -> Any:
    """What is known of a response under a name, arrays as lists; None where nothing is."""
    value = facts.get(name)
    to_list = getattr(value, "tolist", None)
    return to_list() if to_list else value
