"""The check that a method gives credit of the right shape, on two example responses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import stepcredit as sc
from stepcredit.errors import EngineError, MethodError


def check_shape(estimator: sc.Estimator, streams: Iterable[str], setting: str) -> None:
    """Refuse a method whose `credit` returns something else than one advantage per slot.

    The method runs once on a group of two example responses. A method that can't credit them is
    not refused: it may need what they do not have.

    Args:
        estimator: the method.
        streams: names of the process streams that it will be given.
        setting: the setting that names the method, for errors.

    Raises:
        EngineError: says what was returned, and what is expected.

    Example:
        >>> check_shape(sc.PASS(), ["process"], "method")
    """
    try:
        rollouts = _example(estimator.reads, list(streams))
        credit = estimator.for_batch(rollouts).credit(rollouts)
    except Exception:  # the method is not made for the example
        return
    try:
        sc.Credit.checked(credit, rollouts)
    except MethodError as error:
        raise EngineError(error.reason, field=setting) from error


def _example(reads: sc.Reads, streams: list[str]) -> sc.Rollouts:
    """Two responses, of 3 and 2 tokens, with what a method reads."""
    steps = sc.Steps([[0, 2], [1]], [[1.0, 0.5], [0.25]])
    tokens: Any = [[-0.5, -1.0, -0.25], [-0.75, -0.5]]
    names = streams if reads.process is not None else []
    return sc.Rollouts(
        group=[0, 0],
        lengths=[3, 2],
        process=dict.fromkeys(names, steps) or None,
        logprobs={name: sc.Tokens(tokens) for name in reads.logprobs} or None,
        outcome=[1.0, 0.0],
        format=[1.0, 0.0],
        step_ends=[[0, 2], [1]],
        tokens=[["a ", "b", "."], ["c ", "d"]],
        step_states=[["start", "next"], ["start"]] if reads.states else None,
    )
