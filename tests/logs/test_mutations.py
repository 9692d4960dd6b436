"""Broken logs are converted right, or refused, or what is wrong with them is said.

`STEPCREDIT_SEEDS=1000` tries that many logs.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from tests.logs.conftest import read_lines, run
from tests.logs.mutations import WRITERS, Log, Truth, make_log, write_log

SEEDS = int(os.environ.get("STEPCREDIT_SEEDS", "40"))
WITH_IDS = tuple(WRITERS.keys() - {"trl-completions", "messages"})
"""Formats that can name groups."""
SAID = {
    "rows": ("left out", "groups that lost responses"),
    "groups": ("the log names no groups",),
    "question": ("chat template that is not known", "may be cut elsewhere"),
    "own": ("may stand before a tool's answer", "written as <tool_call> and <think>"),
    "outcome": ("the log has no column of numbers", "holds numbers as text"),
}
"""By what is not as it is in truth: what has to be said, one of these."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_wrong_without_a_word(seed: int, tmp_path: Path) -> None:
    log = make_log(seed)
    path, out = write_log(log, tmp_path), tmp_path / "rollouts.jsonl"
    code, _, err = run("convert", path, "-o", out)
    if code != 0:
        assert (code, err.count("\n"), out.exists()) == (1, 1, False)
        assert log.broken, "a log without a fault is read"
        return
    rows = read_lines(out)
    for what in wrong(log, rows):
        assert any(words in err for words in SAID[what]), (what, log.format, log.broken, err)
    if not log.broken and log.has_ids and log.format in WITH_IDS:
        assert err == ""
    _check_advantages(out, rows, err)


def wrong(log: Log, rows: list[dict[str, Any]]) -> set[str]:
    """What is not as it is in truth."""
    found: set[str] = set()
    usable = [truth for truth in log.truths if truth.own]
    pairs = [(row, _truth(row, usable)) for row in rows]
    if any(truth is None for _, truth in pairs):
        return {"rows", "own"}
    known = [(row, truth) for row, truth in pairs if truth is not None]
    if len(known) < len(log.truths):
        found.add("rows")
    for row, truth in known:
        found |= {"question"} if row["prompt"] != truth.question else set()
        found |= {"own"} if truth.own not in _own(row) or truth.turns else set()
        found |= {"own"} if not truth.turns and truth.own != _own(row) else set()
        found |= {"outcome"} if row.get("outcome") != truth.outcome else set()
    for (one, first), (other, second) in combinations(known, 2):
        together = (first.step, first.group) == (second.step, second.group)
        found |= {"groups"} if (one["group"] == other["group"]) != together else set()
    return found


def _truth(row: dict[str, Any], truths: list[Truth]) -> Truth | None:
    """The response that a row is: by its text, or an agent's by its last words."""
    for truth in truths:
        if row["text"] == truth.text or (truth.turns and row["text"].endswith(truth.own)):
            return truth
    return None


def _own(row: dict[str, Any]) -> str:
    """What is trained of a row."""
    if "tokens" not in row:
        return str(row["text"])
    flags = row.get("loss_mask", [1] * len(row["tokens"]))
    return "".join(token for token, own in zip(row["tokens"], flags, strict=True) if own)


def _check_advantages(path: Path, rows: list[dict[str, Any]], said: str) -> None:
    """GRPO's advantages of each group, whose outcomes are all known, by plain arithmetic."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["group"]].append(row.get("outcome"))
    if None in (outcome for each in groups.values() for outcome in each):
        return
    code, _, err = run("shape", path, "-o", path, "--method", "grpo")
    assert code == 0, err
    if max(map(len, groups.values())) == 1:
        assert "every group has one response" in said
        assert "every group has one response" in err
    for row in read_lines(path):
        outcomes = groups[row["group"]]
        mean, count = sum(outcomes) / len(outcomes), len(outcomes)
        spread = sqrt(sum((each - mean) ** 2 for each in outcomes) / max(1, count - 1))
        expected = (row["outcome"] - mean) / (spread + 1e-6) if count > 1 else 0.0
        flags = row.get("loss_mask", [1] * len(row["advantages"]))
        assert row["advantages"] == pytest.approx([expected * own for own in flags], abs=1e-4)


ODD: tuple[Any, ...] = (5, "x", "", None, [], {}, [1], {"a": 1}, True, [[]], ["x", None], -0.5)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_values_of_any_type_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    """A few values of a log become something else, in every row or in one."""
    log, draw = make_log(seed), random.Random(f"odd {seed}")
    name, value, every = draw.random(), draw.choice(ODD), draw.random() < 0.3
    before, at, count = log.change, draw.randrange(3), iter(range(10**6))

    def change(row: dict[str, Any]) -> dict[str, Any]:
        row = before(row)
        if row and (every or next(count) == at):
            row[list(row)[int(name * len(row))]] = value
        return row

    log.change = change
    path, out = write_log(log, tmp_path), tmp_path / "rollouts.jsonl"
    for options in ((), ("--from", log.format)):
        code, _, err = run("convert", path, "-o", out, *options)
        assert code in (0, 1), err
        if code == 0:
            assert run("validate", out)[0] == 0
