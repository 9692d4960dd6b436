"""docs/oracles.md: every figure of the page, computed again."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path

import pytest

from stepcredit.oracles import (
    WORLDS,
    WorldGroups,
    decided_claims,
    oracle_table,
    turn_baseline_table,
)
from stepcredit.oracles.oracle_report import (
    BASELINES_MARK,
    CLAIM_HEADINGS,
    CLAIMS_MARK,
    TABLE_HEADINGS,
    TABLE_MARK,
    baseline_cells,
    baseline_headings,
    claim_cells,
    table_cells,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "oracles.md"
NUMBER = re.compile(r"[-+]?(?:\d+\.\d+|\binf\b)")

Cells = list[list[str]]


def table_between(mark: str) -> Cells:
    """The cells of the table between two marks of the page."""
    text = PAGE.read_text()
    block = text.split(f"<!-- {mark}: begin -->")[1].split(f"<!-- {mark}: end -->")[0]
    rows = [line.strip("| ").split(" | ") for line in block.strip().splitlines()]
    return [rows[0], *rows[2:]]


def same(shown: str, computed: str) -> bool:
    """The same words, and the same numbers but for one unit in the last place."""
    if NUMBER.sub("#", shown) != NUMBER.sub("#", computed):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(computed), strict=True)
    return all(near(a, b) for a, b in pairs)


def near(shown: str, computed: str) -> bool:
    unit = 10.0 ** -len(shown.partition(".")[2])
    return shown == computed or math.isclose(float(shown), float(computed), abs_tol=1.01 * unit)


@cache
def computed_tables() -> dict[str, Cells]:
    """The tables by mark, as the command makes them."""
    rows, baselines = oracle_table(), turn_baseline_table()
    claims = decided_claims(rows)
    return {
        TABLE_MARK: [list(TABLE_HEADINGS), *table_cells(rows)],
        CLAIMS_MARK: [list(CLAIM_HEADINGS), *claim_cells(claims)],
        BASELINES_MARK: [baseline_headings(baselines), *baseline_cells(baselines)],
    }


@pytest.mark.parametrize("mark", [TABLE_MARK, CLAIMS_MARK, BASELINES_MARK])
def test_the_page_shows_what_the_command_computes(mark: str) -> None:
    shown, computed = table_between(mark), computed_tables()[mark]
    assert [row[:2] for row in shown] == [row[:2] for row in computed]
    apart = [
        (row[:2], a, b)
        for row, again in zip(shown, computed, strict=True)
        for a, b in zip(row, again, strict=True)
        if not same(a, b)
    ]
    assert apart == []


def test_every_figure_of_the_text_is_in_the_tables() -> None:
    text = re.sub(r"<!-- ([\w-]+): begin -->.*?<!-- \1: end -->", "", PAGE.read_text(), flags=re.S)
    text = re.sub(r"```.*?```|^\| `.*?$", "", text, flags=re.S | re.M)
    shown = " ".join(
        cell for mark in computed_tables() for row in table_between(mark) for cell in row
    )
    known = {number.lstrip("+") for number in NUMBER.findall(shown)}
    settings = {"0.7", "0.5", "0.1"}
    said = {number.lstrip("+") for number in NUMBER.findall(text)}
    assert said - known - settings == set()
    assert len(said) > 20


def test_the_page_lists_the_tasks() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.*?) \| (\d+) \| ([\d,]+) \| ([\d.]+) \|$", PAGE.read_text(), re.M
    )
    assert [row[0] for row in rows] == list(WORLDS)
    for name, about, responses, groups, value in rows:
        world = WORLDS[name]
        assert about == world.about.rstrip(".")
        assert int(responses) == len(world.trajectories)
        assert int(groups.replace(",", "")) == len(WorldGroups(world).chances)
        assert float(value) == pytest.approx(world.expected_outcome, abs=0.0051)
