"""Groups that verl filters out before their credit is computed (`algorithm.filter_groups`, DAPO).

verl's replay buffers drop a finished group whose responses all have the same value of one metric.
NaN is equal to nothing, so a group with a NaN is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stepcredit.engines.verl.config_keys import VerlSettings, value_at
from stepcredit.engines.verl.whole_groups import has_own_sampler
from stepcredit.errors import EngineError
from stepcredit.rewards.base import Reward

FILTER = "algorithm.filter_groups"
REWARD = "reward"
"""The metric that is verl's reward itself; others are extras of the reward loop."""
SAME_REWARD = (REWARD, "score")
"""Metrics that are 0 where the outcome is unknown; `acc` is NaN there, and `outcome` is None."""


def filter_metric(config: Any) -> str | None:
    """The metric by which verl drops groups; None: it drops none.

    Args:
        config: verl's. A sampler of the user's filters as it likes.

    Example:
        >>> filter_metric({"algorithm": {"filter_groups": {"enable": True, "metric": "acc"}}})
        'acc'
    """
    if has_own_sampler(config) or not value_at(config, f"{FILTER}.enable", False):
        return None
    metric = value_at(config, f"{FILTER}.metric")
    return None if metric is None else str(metric)


def filter_warnings(config: Any, settings: VerlSettings) -> Iterator[str]:
    """What is lost with the groups that verl drops, in one line; nothing where nothing is.

    Args:
        config: verl's.
        settings: of credit.
    """
    metric = filter_metric(config)
    if metric is None or not settings.signals:
        return
    line = f"{FILTER}.enable: a group whose responses all have the same {metric} is dropped before"
    line += " its credit is computed, so that its step scores train nothing"
    if settings.scored_with_rewards:
        line += ", and what they took is in no metric"
    yield line


def check_filtered_golds(config: Any, settings: VerlSettings, golds: Sequence[Any]) -> None:
    """Refuse a filter that fails at unknown outcomes, or drops groups which only steps can train.

    Args:
        config: verl's.
        settings: of credit.
        golds: the gold answer of each row to train on; None where there is none.

    Raises:
        EngineError: says how many rows have no outcome, and which metric keeps their groups.
    """
    metric, rule = filter_metric(config), settings.outcome_reward
    if metric not in ("outcome", *SAME_REWARD) or rule is None:
        return
    if metric != "outcome" and not settings.signals:
        return  # without step scores there is nothing to train in such a group
    unknown = _unknown_outcomes(rule, golds)
    if unknown == 0:
        return
    reason = f"{unknown} of {len(golds)} rows have no gold answer that can be read, and"
    if metric == "outcome":
        reason += " verl fails at their outcomes, which are null"
    else:
        reason += f" verl drops their groups with their step scores, as each {metric} is 0"
    raise EngineError(f"{reason}; acc keeps them", field=f"{FILTER}.metric")


def _unknown_outcomes(rule: Reward, golds: Sequence[Any]) -> int:
    """How many rows have an outcome that the reward leaves unknown."""
    field = getattr(rule, "answer", None)
    if field is None:
        return 0
    missing = sum(gold is None for gold in golds)
    if getattr(rule, "unreadable", None) != "unknown":
        return missing
    known = [{str(field): gold} for gold in golds if gold is not None]
    return missing + len(rule.unreadable_facts(known))
