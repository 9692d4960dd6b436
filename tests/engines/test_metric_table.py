"""The table of metrics: the docs have it word by word, and everything it names is logged."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stepcredit as sc
from stepcredit.credit.metrics.metric_table import METRICS, PANELS, as_markdown, metric_of
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.engines.scoring_costs import ScoringCost, cost_metrics, step_shares
from stepcredit.engines.verl.metric_names import safe_name
from stepcredit.signals.served.judge_cost import Usage
from stepcredit.signals.server_statistics import ServedStatistics, ServerStatistics

DOCS = Path(__file__).parents[2] / "docs"
OF_TRL_ALONE = {"no_context_share", "pass@NUMBER"}
"""Rows whose metrics only TRL's engine makes: tests of that engine hold them."""


def every_metric() -> dict[str, float]:
    """What both engines log of a batch that knows everything, and of what its scores cost."""
    ends = [[0, 1, 2, 3], [0, 1, 2], [3], [0, 1, 3], []]
    scores = [[0.9, 0.1, 0.1, 0.8], [0.3, 0.2, 0.1], [0.95], [0.4, 0.5, 0.6], []]
    rollouts = sc.Rollouts(
        [0, 0, 0, 0, 0],
        lengths=[4, 3, 4, 4, 2],
        process=sc.Steps(ends, scores),
        outcome=[1.0, 0.0, 0.0, 1.0, 0.0],
        format=[1.0, 1.0, 0.0, 1.0, 1.0],
        step_states=[["a", "b", "c", "d"], ["a", "b", "e"], ["a"], ["a", "b", "f"], []],
    )
    texts = ["3+4=7 ... so 3+4=7", "wait, 5 is it", "#", "the answer is 7", "..."]
    steps = [["3+4=7", "...", "3+4=7", "7"], ["wait", "5", "is it"], ["#"], ["a", "b", "c"], []]
    metrics = training_metrics(
        rollouts,
        sc.PASS(clip=0.5),
        steps=steps,
        texts=[*texts[:2], "<think>", *texts[3:]],
        truncated=[False, False, True, False, False],
        cut={"process": [False, True, False, False, False]},
    )
    served = ServedStatistics((ServerStatistics("http://a:8000", sent=3),), waited_seconds=1.0)
    cost = {"process": ScoringCost(2.0, Usage(answers=3, read=50, written=5), served)}
    prices = {"process": {"read": 1.0, "written": 2.0}}
    return metrics | cost_metrics(cost, prices) | step_shares({"process": 2.0}, 8.0)


def test_every_metric_is_in_the_table_and_every_row_is_logged() -> None:
    found = every_metric()
    rows = {name: metric_of(name) for name in found}
    assert [name for name, row in rows.items() if row is None] == []
    logged = {row.name for row in rows.values() if row is not None}
    assert {row.name for row in METRICS} - logged == OF_TRL_ALONE


def test_a_name_belongs_to_one_row_and_verl_averages_it() -> None:
    for name in every_metric():
        assert sum(row.pattern.fullmatch(name) is not None for row in METRICS) == 1, name
        assert not re.search("min|max|sum|total", safe_name(name)), name
        assert metric_of(safe_name(name)) is metric_of(name)


def test_the_docs_have_the_table_word_by_word() -> None:
    page = (DOCS / "metrics.md").read_text()
    assert as_markdown() in page, "put what `as_markdown()` gives into docs/metrics.md"
    assert {row.panel for row in METRICS} == set(PANELS)


@pytest.mark.parametrize("page", ["tasks/read-the-metrics.md", "troubleshooting.md", "trl.md"])
def test_other_pages_name_no_metric_that_is_not_in_the_table(page: str) -> None:
    text = (DOCS / page).read_text()
    named = re.findall(r"`stepcredit/([a-z_]+(?:/[A-Za-z]+)?)`", text)
    assert [name for name in named if metric_of(name) is None] == []
