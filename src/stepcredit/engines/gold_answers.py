"""Gold answers that a reward can't read are refused before training, not in the middle of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stepcredit.errors import EngineError
from stepcredit.rewards.base import Reward


def refuse_unreadable(
    rule: Reward, golds: Iterable[Any], place: str, column: str | None = None
) -> None:
    """Refuse a training set for the first gold answer that a reward refuses.

    Args:
        rule: the reward.
        golds: the gold answer of each row; None where a row has none, whose outcome is unknown.
        place: where the reward's fields are set, such as `outcome_reward_fields`.
        column: where a row has its gold answer, for the error; None: in the field that the reward
            names.

    Raises:
        EngineError: the answer, its row, how many there are, and the setting with which their
            outcomes are left unknown.

    Example:
        >>> from stepcredit.rewards import reward
        >>> refuse_unreadable(reward("maths"), ["1/2", None], "fields")
        >>> refuse_unreadable(reward("maths", unreadable="unknown"), ["t(0,4]"], "fields")
        >>> refuse_unreadable(reward("maths"), ["1/2", "t(0,4]"], "fields")
        Traceback (most recent call last):
        ...
        stepcredit.errors.EngineError: row 1: answer: can't be read as maths: 't(0,4]'; 1 of 2 \
gold answers are like this: fields.unreadable="unknown" leaves their outcomes unknown
    """
    field = str(getattr(rule, "answer", "answer"))
    known = {row: gold for row, gold in enumerate(golds) if gold is not None}
    faults = rule.refused_facts([{field: gold} for gold in known.values()])
    if not faults:
        return
    first = min(faults)
    reason = (
        f"{faults[first].reason}; {len(faults)} of {len(known)} gold answers are like this: "
        f'{place}.unreadable="unknown" leaves their outcomes unknown'
    )
    raise EngineError(reason, row=list(known)[first], field=column or field)
