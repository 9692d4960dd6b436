"""`explain` shows a part of a batch's chunks, and builds nothing for the others."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

import stepcredit as sc
from stepcredit.errors import SettingError

STEPS = sc.Steps(ends=[[0, 2, 4], [1, 2], [0, 1, 2, 3]], scores=[[1, 0, 1], [0, 1], [1, 0, 1, 0]])


@pytest.fixture
def explanation() -> sc.Explanation:
    """Three rollouts with 3, 2 and 4 chunks."""
    rollouts = sc.Rollouts(group=[0, 0, 0], process=STEPS, outcome=[1.0, 0.0, 1.0])
    return sc.PASS().explain(rollouts)


def body(text: str) -> list[str]:
    """The lines below the headings."""
    lines = text.splitlines()
    heading = next(at for at, line in enumerate(lines) if line.startswith("group  "))
    return lines[heading + 1 :]


def shown(explanation: sc.Explanation, *limit: int | None, **which: object) -> list[list[str]]:
    """The last column of each line of the table, one list per rollout."""
    found: list[list[str]] = []
    for line in body(explanation.text(*limit, **which)):
        cells = line.split()
        if line.startswith("0 "):
            found.append([])
        if line.startswith(("0 ", "  ")):
            found[-1].append(cells[-1])
    return found


def test_the_parts_together_are_the_whole(explanation: sc.Explanation) -> None:
    whole = shown(explanation)
    assert [len(chunks) for chunks in whole] == [3, 2, 4]
    assert shown(explanation, rollouts=slice(1, None)) == whole[1:]
    assert shown(explanation, rollouts=slice(1, 2)) == [whole[1]]
    assert shown(explanation, 4) == [whole[0], whole[1][:1]]
    assert shown(explanation, 2, start=4) == [whole[1][1:], whole[2][:1]]
    assert shown(explanation, None, start=1, rollouts=slice(2, 3)) == [whole[2][1:]]


def test_what_is_left_out_is_stated(explanation: sc.Explanation) -> None:
    assert explanation.left_out_of_table() is None
    assert explanation.left_out_of_table(2) == "chunks 0 to 1 of 9 are shown"
    assert explanation.left_out_of_table(1, start=8) == "chunk 8 of 9 is shown"
    assert explanation.left_out_of_table(9, start=9) == "no chunk of 9 is shown"
    of_one = explanation.left_out_of_table(3, rollouts=slice(2, 3))
    assert of_one == "chunks 0 to 2 of 4 of these rollouts are shown"
    below = body(explanation.text(2))[2]
    assert below == "chunks 0 to 1 of 9 are shown; text(limit=None) shows all"


def test_what_cannot_be_shown_is_refused(explanation: sc.Explanation) -> None:
    with pytest.raises(SettingError, match=r"^limit: expected at least 0, got -1$"):
        explanation.table(-1)
    with pytest.raises(SettingError, match=r"^start: expected at least 0, got -2$"):
        explanation.text(start=-2)
    message = r"^rollouts: expected a slice without a step, got slice\(0, 3, 2\)$"
    with pytest.raises(SettingError, match=message):
        explanation.table(rollouts=slice(0, 3, 2))


def test_a_table_is_as_wide_as_its_cells() -> None:
    scores = {f"stream {number}": sc.Tokens([[1.0, 0.5], [0.25, 2.0]]) for number in range(40)}
    weights = dict.fromkeys([*scores, "outcome"], 1.0)
    rollouts = sc.Rollouts(group=[0, 0], process=scores, outcome=[1e30, -1e30])
    explanation = sc.PASS(weights=weights).explain(rollouts)
    text = explanation.text()
    assert len([line for line in body(text) if not line.startswith("warning")]) == 4
    assert "…" not in text
    for row in explanation.rows:
        assert f"{row['advantage']:.4f}" in text


def test_a_large_batch_is_shown_without_a_table_of_it() -> None:
    """Peak memory of printing stays far below one dictionary per chunk (about 1 kB each)."""
    tokens, rows = 1000, 200
    scores = torch.rand(rows, tokens, generator=torch.Generator().manual_seed(0))
    process = sc.Tokens(list(scores.unbind()))
    outcome = np.arange(rows) % 2
    rollouts = sc.Rollouts(group=[0] * rows, process=process, outcome=outcome.tolist())
    explanation = sc.PASS(chunks="tokens").explain(rollouts)
    assert explanation.advantage.numel() > 100_000
    tracemalloc.start()
    try:
        text = explanation.text()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert body(text)[200] == "chunks 0 to 199 of 200,000 are shown; text(limit=None) shows all"
    assert peak < 10_000_000
