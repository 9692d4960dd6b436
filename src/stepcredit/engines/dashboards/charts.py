"""`charts`: which metrics are drawn together, in which section; derived from the table of metrics.

TRL's logs put `train/` before the names, verl's do not: patterns match both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from stepcredit.credit.metrics.metric_table import METRICS, PANELS, PREFIX, Metric

TOGETHER = {
    "pay/ of responses": r"pay/\w+_responses",
    "pay/ of steps": r"pay/\w+_steps",
    "pay_gap/": r"pay_gap/\w+",
    "length": r"length(_right|_wrong)?",
    "steps": r"steps(_right|_wrong)?",
    "share of filler and repeated steps": r"(repeated|contentless)_step_share",
    "judge_tokens": r"judge_tokens_(read|written)/STREAM",
    "std of parts": r"(advantage|process|outcome|format)_std",
}
"""Titles of charts of several rows of the table, and which rows they hold."""
NOT_DRAWN = ("right_above", "pass@NUMBER")
"""A setting; and figures of evaluations, which have a section of their own in every tool."""
BEFORE = "(train/)?"


@dataclass(frozen=True)
class Chart:
    """One picture of a dashboard.

    Args:
        title: what stands above it.
        rows: the metrics that it shows, of all streams.
    """

    title: str
    rows: tuple[Metric, ...]

    @property
    def pattern(self) -> str:
        """A regular expression of the logged names that it shows.

        Example:
            >>> import re
            >>> [length] = [c for c in charts()["Length and steps"] if c.title == "length"]
            >>> names = ("train/stepcredit/length_right", "stepcredit/length", "other/length")
            >>> [re.fullmatch(length.pattern, name) is not None for name in names]
            [True, True, False]
        """
        names = "|".join(row.pattern.pattern for row in self.rows)
        return f"^{BEFORE}{PREFIX}({names})$"

    @property
    def about(self) -> str:
        """What its metrics mean, and what to do when they drift, one line per metric."""
        return "\n".join(f"{row.name}: {row.meaning}. Drifts: {row.drift}." for row in self.rows)


def charts() -> dict[str, list[Chart]]:
    """The charts of each section, in the order of the table of metrics.

    Example:
        >>> [section, *_] = charts().items()
        >>> section[0], section[1][0].title
        ('What the signals say', 'raw_mean/')
    """
    rows: dict[tuple[str, str], list[Metric]] = {}
    for row in METRICS:
        if row.name not in NOT_DRAWN:
            rows.setdefault((row.panel, title_of(row)), []).append(row)
    return {
        panel: [Chart(title, tuple(of)) for (own, title), of in rows.items() if own == panel]
        for panel in PANELS
    }


def title_of(row: Metric) -> str:
    """The title of the chart that shows a row.

    Example:
        >>> from stepcredit.credit.metrics.metric_table import metric_of
        >>> title_of(metric_of("pay/first_steps")), title_of(metric_of("share/prm"))
        ('pay/ of steps', 'share/')
    """
    shared = (title for title, names in TOGETHER.items() if re.fullmatch(names, row.name))
    return next(shared, row.name.removesuffix("STREAM"))


def plot_order() -> list[str]:
    """The order of metrics for tools that group them by their name alone, such as Trackio.

    Example:
        >>> plot_order()[:2]
        ['train/stepcredit/raw_mean/*', 'stepcredit/raw_mean/*']
    """
    names = [
        row.name.replace("STREAM", "*")
        for section in charts().values()
        for chart in section
        for row in chart.rows
    ]
    return [f"{before}{PREFIX}{name}" for name in names for before in ("train/", "")]
