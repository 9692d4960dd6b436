"""A reward of stepcredit in the shape of verl's `compute_score`.

verl's config can name `compute_score` itself:

    reward.custom_reward_function.path=pkg://stepcredit.engines.verl.score_function
    reward.custom_reward_function.name=compute_score
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from math import nan
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.rewards.base import Reward
from stepcredit.rewards.reward_registry import reward as build_reward
from stepcredit.settings.fields import Frozen, frozen

logger = logging.getLogger(__name__)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    reward: str = "maths",
    settings: Mapping[str, Any] | None = None,
    **rest: Any,
) -> float | dict[str, Any]:
    """A reward as verl's custom reward function. It may be called from any thread.

    A gold answer that is missing or can't be read does not end the run. With the setting
    `unreadable=unknown` every result is a dict as of `as_compute_score`, in which such an outcome
    is None. With the default the score is 0, since verl takes numbers alone, and a warning names
    the answer once.

    Args:
        data_source: names the row in errors.
        solution_str: the response.
        ground_truth: the gold answer.
        extra_info: further facts.
        reward: name of the reward; `custom_reward_function.reward_kwargs` sets it.
        settings: the reward's fields.
        rest: further arguments of verl's; not used.

    Returns:
        The score; or a dict of score, acc and outcome.

    Raises:
        RolloutError: a fact that is missing or can't be used.

    Example:
        >>> compute_score("gsm8k", "6 * 7 = 42\\n#### 42", "42", reward="exact",
        ...               settings={"read": "hash"})
        1.0
    """
    rule = _cached_reward(reward, Frozen(frozen(settings or {})))
    lenient = rule.for_training()
    if lenient is rule and getattr(rule, "unreadable", None) == "unknown":
        return as_compute_score(rule)(data_source, solution_str, ground_truth, extra_info)
    try:
        if ground_truth is None and hasattr(rule, "answer"):
            _warn_once(data_source, "the gold answer of a row is missing")
            return 0.0
        score = _score(lenient, solution_str, ground_truth, extra_info)
        if score is None:
            what = f"the gold answer {str(ground_truth)[:80]!r} can't be read as maths"
            option = "reward_kwargs.settings.unreadable=unknown leaves its outcome unknown"
            _warn_once(data_source, f"{what} ({option})")
        return score or 0.0
    except RolloutError as error:
        raise error.at(place=f"data source {data_source}") from error.__cause__


@lru_cache(maxsize=10_000)
def _warn_once(data_source: str, why: str) -> None:
    logger.warning("data source %s: %s, so its score is 0", data_source, why)


async def compute_score_async(*args: Any, **kwargs: Any) -> float | dict[str, Any]:
    """`compute_score` for a caller that awaits it: the grading runs in another thread."""
    return await asyncio.to_thread(compute_score, *args, **kwargs)


def as_compute_score(rule: Reward) -> Callable[..., dict[str, Any]]:
    """The reward as a function that verl's reward managers call. Any thread may call it.

    If the reward reads a gold answer and the row has none, or one that can't be read, the outcome
    is unknown. verl needs a
    number and gets 0 as `score`. `acc` is NaN then: verl's validation would count None as wrong.

    Args:
        rule: the reward.

    Example:
        >>> from stepcredit.rewards import reward
        >>> as_compute_score(reward("exact"))("gsm8k", "42", "42", extra_info={})
        {'score': 1.0, 'acc': 1.0, 'outcome': 1.0}
        >>> as_compute_score(reward("exact"))("gsm8k", "42", None, extra_info={})
        {'score': 0.0, 'acc': nan, 'outcome': None}
    """

    lenient = rule.for_training()

    def score(
        data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **rest: Any
    ) -> dict[str, Any]:
        if ground_truth is None and hasattr(rule, "answer"):
            return {"score": 0.0, "acc": nan, "outcome": None}
        outcome = _score(lenient, solution_str, ground_truth, extra_info)
        if outcome is None:
            return {"score": 0.0, "acc": nan, "outcome": None}
        return {"score": outcome, "acc": outcome, "outcome": outcome}

    return score


def _score(
    rule: Reward, text: str, gold: Any, extra_info: Mapping[str, Any] | None
) -> float | None:
    """One response's reward; the gold answer is the fact that the reward's `answer` names."""
    facts = {**(extra_info or {}), getattr(rule, "answer", "answer"): gold}
    return rule([text], [facts])[0]


@lru_cache(maxsize=64)
def _cached_reward(name: str, settings: Frozen) -> Reward:
    return build_reward(name, **settings)
