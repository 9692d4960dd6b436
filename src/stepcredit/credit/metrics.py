"""What a batch's credit looks like: pure functions of an estimator, rollouts and advantages."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from stepcredit.credit.estimator import Estimator
from stepcredit.data.inputs import Scalar
from stepcredit.data.rollouts import Rollouts


def stream_std(estimator: Estimator, rollouts: Rollouts) -> dict[str, float]:
    """Standard deviation, over tokens, of the advantages and of each stream's part of them.

        std(A),  std(A - A with the stream's values set to 0)

    Before clipping. 0 is what every estimator makes of a stream whose values are all equal.

    Args:
        estimator: gives the advantages.
        rollouts: a batch.

    Returns:
        {"advantage", "process", "outcome", "format"}: population std; "process" is all process
        streams together, an absent stream has 0.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
        >>> {name: round(std, 3) for name, std in stream_std(sc.GRPO(), r).items()}
        {'advantage': 0.707, 'process': 0.0, 'outcome': 0.707, 'format': 0.0}

    Source: ours.
    """
    whole = replace(estimator, clip=None)
    values = _values(whole, rollouts)
    found = {"advantage": _std(values)}
    for name, silent in _silenced(rollouts).items():
        found[name] = _std(values - _values(whole, silent))
    return found


def clipped_share(estimator: Estimator, rollouts: Rollouts) -> float:
    """Share of trained tokens whose advantage `clip` cuts; 0 without a clip.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(group=[0, 0], lengths=[3, 1], outcome=[2.0, 0.0])
        >>> clipped_share(sc.DrGRPO(clip=0.5), r)
        1.0

    Source: ours.
    """
    if estimator.clip is None:
        return 0.0
    values = _values(replace(estimator, clip=None), rollouts)
    return float((values.abs() > estimator.clip).to(torch.float64).mean())


def _values(estimator: Estimator, rollouts: Rollouts) -> Tensor:
    return estimator(rollouts).packed().to(torch.float64)


def _std(values: Tensor) -> float:
    return float(values.std(correction=0))


def _silenced(rollouts: Rollouts) -> dict[str, Rollouts]:
    """The rollouts with all process streams, the outcome or the format at 0."""
    quiet = {name: stream.zeroed() for name, stream in rollouts.streams.items()}
    return {
        "process": rollouts.replaced(streams=quiet),
        "outcome": rollouts.replaced(outcomes=_zero(rollouts.outcomes)),
        "format": rollouts.replaced(formats=_zero(rollouts.formats)),
    }


def _zero(scalar: Scalar) -> Scalar:
    return Scalar(torch.zeros_like(scalar.values), scalar.known)
