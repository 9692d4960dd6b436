"""Numbers as the page writes them."""

from __future__ import annotations

from math import isnan

from stepcredit.study.study_statistics import Estimate

NONE = "–"
"""What stands where there is no figure."""


def figure(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits, or `NONE`.

    Example:
        >>> figure(0.52), figure(None)
        ('0.520', '–')
    """
    return NONE if value is None or isnan(value) else f"{value:.{digits}f}"


def interval(estimate: Estimate | None, digits: int = 3) -> str:
    """A figure with its interval.

    Example:
        >>> interval(Estimate(0.5, 0.45, 0.56, 10))
        '0.500 (0.450 to 0.560)'
    """
    if estimate is None:
        return NONE
    if isnan(estimate.low):
        return figure(estimate.value, digits)
    low, high = figure(estimate.low, digits), figure(estimate.high, digits)
    return f"{figure(estimate.value, digits)} ({low} to {high})"


def difference(estimate: Estimate | None, digits: int = 3) -> str:
    """A difference with its interval, all with their signs.

    Example:
        >>> difference(Estimate(0.05, -0.01, 0.11, 10))
        '+0.050 (-0.010 to +0.110)'
    """
    if estimate is None:
        return NONE
    value, low, high = (f"{x:+.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return value if isnan(estimate.low) else f"{value} ({low} to {high})"


def shares(pair: tuple[float, float]) -> str:
    """pass@1 and pass@8.

    Example:
        >>> shares((0.5, 0.875))
        '0.500 / 0.875'
    """
    return " / ".join(map(figure, pair))
