"""The shares of credit in the guide "Read the metrics": the page's table, computed again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import stepcredit as sc
from stepcredit.credit.metrics import training_metrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tasks" / "read-the-metrics.md"
METHODS = {
    "`pass`, process weight 1": sc.PASS(),
    "`pass`, process weight 2": sc.PASS(weights={"process": 2.0, "outcome": 1.0}),
    '`pass` with `scope="process"`, process weight 1': sc.PASS(scope="process"),
}
GROUPS, SIZE = 64, 8


def random_batch(steps: int) -> sc.Rollouts:
    rng, rows = np.random.default_rng(0), GROUPS * SIZE
    scores = rng.random((rows, steps)).tolist()
    return sc.Rollouts(
        [row // SIZE for row in range(rows)],
        process=sc.Steps([[*range(steps)]] * rows, scores),
        outcome=(rng.random(rows) < 0.5).astype(float).tolist(),
    )


def rows_of_page() -> dict[str, list[str]]:
    cells = (line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines())
    return {row[0]: row[1:] for row in cells if len(row) == 6}


@pytest.mark.parametrize("name", METHODS)
def test_the_share_of_the_process_stream_falls_with_the_steps(name: str) -> None:
    table = rows_of_page()
    steps = [int(count) for count in table["steps per response"]]
    found = [training_metrics(random_batch(count), METHODS[name]) for count in steps]
    shown = [f"{each['share/process']:.2f}" for each in found]
    assert shown == table[name]
