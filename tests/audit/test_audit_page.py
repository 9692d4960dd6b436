"""The audit's page: its size, its data, and that data can't become markup."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy as np
import pytest
from tests.audit.page_data import data_of, unpacked

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

import stepcredit as sc
from stepcredit.audit import audit_page as audit_page_module
from stepcredit.audit import page_rows
from stepcredit.audit.audit_page import audit_page
from stepcredit.audit.audit_report import AuditReport, audit
from stepcredit.audit.finding import (
    AuditFigure,
    CheckResult,
    EvidencePlace,
    Finding,
    Unchecked,
)
from stepcredit.audit.interval_plots import interval_plots
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.packed_columns import ColumnPacker
from stepcredit.audit.page_rows import escaped_json
from stepcredit.credit.method_registry import METHODS

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u202e\x1b[31m\u2028&amp;"
METHOD_NAMES = ("pass", "pure", "pass-min", "grpo")


def rows_of(groups: int, per: int, tokens: int, *, dense: bool = False) -> list[dict[str, Any]]:
    source = random.Random(0)
    rows = []
    for number in range(groups * per):
        row: dict[str, Any] = {"group": f"g{number // per}", "outcome": float(number % 2)}
        row["tokens"] = [source.choice(["so ", "then ", "1", "\n"]) for _ in range(tokens)]
        if dense:
            row["token_scores"] = [source.gauss(0, 1) for _ in range(tokens)]
        else:
            ends = [*range(9, tokens - 1, 10), tokens - 1]
            row |= {"step_ends": ends, "step_scores": [source.random() for _ in ends]}
        rows.append(row)
    return rows


def report_of(rows: list[dict[str, Any]], source: str = "rows", **results: Any) -> AuditReport:
    methods = {name: METHODS.build(name) for name in METHOD_NAMES}
    checks = {name: lambda _, r=result: r for name, result in results.items()}
    return audit(LoggedBatch.of(rows, source), methods, checks=checks)


def shown_rows(report: AuditReport) -> list[dict[str, Any]]:
    return [unpacked(row) for row in page_rows.page_rows(report, 5_000_000).rows]


def test_texts_of_the_data_never_become_markup() -> None:
    rows = rows_of(2, 2, 4)
    rows[0] |= {"tokens": [EVIL, "\ud800", "c", "d"], "prompt": EVIL, "group": EVIL}
    rows[0]["signals"] = {EVIL: {"scores": [0.5], "ends": [3]}}
    rows[1] |= {"group": EVIL, "signals": {EVIL: {"scores": [0.1], "ends": [3]}}}
    figure = AuditFigure(EVIL, 0.5, 4, EVIL, 0.1, 0.9, EVIL, EVIL)
    finding = Finding(EVIL, "fault", EVIL, (figure,), EVIL, (EvidencePlace(0),))
    unchecked = (Unchecked(EVIL, EVIL, EVIL),)
    report = report_of(rows, EVIL, dummy=CheckResult((figure,), (finding,), unchecked))
    page = audit_page(report)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert not {"\u202e", "\x1b", "\u2028"} & set(page)
    data = data_of(page)
    shown = EVIL.replace("\u202e", "⟨U+202E⟩").replace("\x1b", "⟨U+001B⟩")
    shown = shown.replace("\u2028", "⟨U+2028⟩")
    first = unpacked(data["rows"][0])
    assert first["tokens"] == [shown, "⟨U+D800⟩", "c", "d"]
    assert first["prompt"] == first["group"] == shown
    assert shown in first["streams"]


def test_json_in_a_script_has_no_character_that_ends_it() -> None:
    text = escaped_json({"a": EVIL + "\u2029"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": EVIL + "\u2029"}


@pytest.mark.parametrize("dense", [False, True], ids=["steps", "tokens"])
def test_two_hundred_long_responses_stay_below_five_megabytes(dense: bool) -> None:
    page = audit_page(report_of(rows_of(25, 8, 1000, dense=dense)))
    data = data_of(page)
    assert len(page.encode()) < 5_000_000
    assert len(data["rows"]) == 200
    assert "All 200 responses are shown" in page
    last = unpacked(data["rows"][-1])
    assert len(last["tokens"]) == 1000
    assert len(last["methods"]) == 4


def test_a_page_of_too_long_texts_shows_fewer_and_stays_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_page_module, "PAGE_BYTES", 400_000)
    source = random.Random(1)
    rows = rows_of(20, 4, 300)
    for row in rows:
        row["tokens"] = [f"{source.random()}" for _ in row["tokens"]]
    page = audit_page(report_of(rows))
    shown = len(data_of(page)["rows"])
    assert len(page.encode()) < 400_000
    assert 10 < shown < 80
    assert f"{shown} of 80 responses are shown" in page


def test_what_is_shown_is_a_sample_and_the_page_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_rows, "MOST_SHOWN", 10)
    cited = Finding("d", "warn", "A.", (), "B.", (EvidencePlace(37), EvidencePlace(38)))
    page = audit_page(report_of(rows_of(20, 4, 6), dummy=CheckResult(findings=(cited,))))
    rows = [row["row"] for row in data_of(page)["rows"]]
    assert len(rows) == 10
    assert rows == sorted(rows)
    assert {37, 38} <= set(rows)
    assert "10 of 80 responses are shown" in page
    assert 'href="#r=37"' in page


@pytest.mark.parametrize("name", ["pass", "pure"])
def test_advantages_of_the_page_are_the_methods(name: str) -> None:
    settings = {"whiten_batch": True} if name == "pure" else {"chunks": "tokens"}
    rows = rows_of(6, 4, 23)
    method = METHODS.build(name, settings if name == "pure" else {})
    batch = LoggedBatch.of(rows)
    expected = method(batch.rollouts).ragged()
    report = audit(batch, {name: method}, checks={})
    for row in shown_rows(report):
        found = row["methods"][name]
        values, ends = found["stages"]["advantage"], found["ends"]
        tokens, first = [], 0
        for place, end in enumerate(range(row["length"]) if ends is None else ends):
            value = values if isinstance(values, float) else values[place]
            tokens += [value] * (end + 1 - first)
            first = end + 1
        largest = max(map(abs, expected[row["row"]].tolist()))
        assert tokens == pytest.approx(expected[row["row"]].tolist(), abs=5e-4 * largest)


def test_untrained_tokens_are_kept_and_long_ones_cut() -> None:
    rows = [
        {
            "group": 0,
            "tokens": ["a", "tool", "b" * 500],
            "loss_mask": [1, 0, 1],
            "outcome": 1.0,
            "prompt": "p" * 9000,
        }
    ]
    [row] = shown_rows(audit(LoggedBatch.of(rows), {"grpo": sc.GRPO()}, checks={}))
    assert (row["mask"], row["length"]) == ("101", 2)
    assert row["tokens"][2].endswith("… (300 more characters)")
    assert row["prompt"].endswith("… (5,000 more characters)")


def test_degenerate_batches_have_a_page() -> None:
    one_token = [{"group": 0, "length": 1, "outcome": 1.0}]
    no_outcome = [{"group": 0, "length": 3}]
    text_only = [{"group": 0, "length": 2, "text": "so 1", "outcome": 0.0}]
    for rows in (one_token, no_outcome, text_only):
        page = audit_page(report_of(rows))
        assert "nothing to change" in page
        assert not re.search(r"\bNaN\b|\bInfinity\b", page.split('id="data"')[1].split("<")[0])
        assert len(data_of(page)["rows"]) == 1


def test_very_long_responses_are_cut_on_the_page() -> None:
    rows = rows_of(1, 2, 5000)
    for row in shown_rows(report_of(rows)):
        assert len(row["tokens"]) == page_rows.TOKENS_SHOWN
        assert row["steps"][-1] == 1999
        assert row["methods"]["pass"]["ends"][-1] == 1999


def test_plot_marks_have_a_note_with_the_interval() -> None:
    figures = [
        AuditFigure("a <share>", 0.5, 8, "groups", 0.25, 0.75, "pass", "$x^2$ $\\bad{$"),
        AuditFigure("a <share>", 0.4, 8, "groups", 0.2, 0.6, "pure"),
        AuditFigure("no interval", 0.4, 8, "groups"),
    ]
    [picture] = interval_plots(figures)
    note = "a &lt;share&gt;, pass, $x^2$ $\\bad{$: 0.5 (0.25 to 0.75), n = 8 groups"
    assert picture.svg.count(f"<title>{note}</title>") == 2
    assert picture.svg.count('class="mark"') == 4
    assert 'aria-label="A &lt;share&gt;"' in picture.svg
    assert interval_plots(figures) == [picture]
    assert interval_plots(figures[2:]) == []


COLUMNS = {
    "noise": [0.123456, -1.9, 0.0, 1e-9, 1.99999],
    "large and small": [-123456.0, 0.04, 99999.0],
    "tiny": [1e-30, -3.14159e-30],
    "sums to the end": [10.0 - 0.1 * i for i in range(50)],
    "a bend": [*range(40), *range(40, 0, -1)],
    "spikes in a line": [9999.0 if i % 20 == 0 else i / 10 for i in range(400)],
    "alternating": [(-1.0) ** i * 9.9996 for i in range(30)],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_keep_four_digits_of_their_largest_number(name: str) -> None:
    given = np.array(COLUMNS[name])
    packer = ColumnPacker()
    places = packer.add_places([3, 9, 32_767])
    reference = packer.add(given)
    row = unpacked({"packed": packer.packed({"steps": places, "streams": {}, "methods": {}})})
    assert row["steps"] == [3, 9, 32_767]
    fields = {"streams": {"s": {"ends": None, "values": reference}}, "methods": {}}
    found = unpacked({"packed": packer.packed(fields)})["streams"]["s"]["values"]
    error = 0.5 * 10.0 ** (np.floor(np.log10(np.abs(given).max())) - 3)
    assert np.abs(np.array(found) - given).max() <= error * (1 + 1e-9)


def test_columns_without_a_spread_are_a_number_and_odd_ones_are_left_out() -> None:
    packer = ColumnPacker()
    assert packer.add(np.array([3.0, 3.0])) == 3.0
    assert packer.add(np.zeros(4)) == 0.0
    assert packer.add(np.array([1.0, np.nan])) is None
    assert packer.add(np.array([])) == [0]


def test_scales_of_colours_are_of_all_shown_values() -> None:
    rows = rows_of(5, 4, 40)
    report = report_of(rows)
    found = page_rows.page_rows(report, 5_000_000)
    names = [(layer["kind"], layer["name"]) for layer in found.layers]
    assert names[:2] == [("stage", "advantage"), ("stream", "process")]
    values = [x for row in rows for x in row["step_scores"]]
    low, middle, high = np.quantile(values, [0.02, 0.5, 0.98], method="nearest")
    scale = found.layers[1]["scales"][""]
    expected = float(middle), max(middle - low, high - middle)
    assert scale == pytest.approx(expected, rel=1e-4)
