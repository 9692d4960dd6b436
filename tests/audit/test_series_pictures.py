"""The pictures of what checks report, and that each has its numbers in a table."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.audit.lab_rows import lab_rows

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")

from stepcredit.audit.audit_report import audit
from stepcredit.audit.conformance import CONFORMANCE, conformance_of
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.page_drawing import Picture
from stepcredit.audit.series_pictures import series_pictures
from stepcredit.audit.shown_figures import visible_values
from stepcredit.credit.method_registry import METHODS

HOSTILE = "</svg><script>x</script>$\\bad{$&\u202e"


def pictured(check: str, series: dict[str, Any], responses: int = 8) -> list[Picture]:
    return series_pictures(check, visible_values(series), responses)


def notes(picture: Picture) -> list[str]:
    return re.findall(r"<title>(.*?)</title>", picture.svg)


def test_every_series_of_an_audit_has_a_picture_with_its_table() -> None:
    batch = LoggedBatch.of(lab_rows("hackable", prompts=12))
    methods = {name: METHODS.build(name) for name in ("pass", "pure", "grpo")}
    report = audit(batch, methods)
    responses = report.counts["responses"]
    drawn = {
        name: series_pictures(name, check["series"], responses)
        for name, check in report.as_json()["checks"].items()
        if any(check["series"].values())
    }
    assert {"contamination", "length", "methods", "payment", "resolution"} <= set(drawn)
    assert "signal_quality" in drawn
    for name, pictures in drawn.items():
        assert pictures, name
        for picture in pictures:
            assert picture.svg.startswith('<svg role="img"'), name
            assert notes(picture), name
            assert picture.rows, name
            assert {len(row) for row in picture.rows} == {len(picture.headings)}


def test_reliability_has_shares_intervals_and_counts() -> None:
    bins = [
        {"low": 0.0, "high": 0.1, "steps": 40, "mean_score": 0.05, "right_share": 0.25},
        {"low": 0.9, "high": 1.0, "steps": 4, "mean_score": 0.95, "right_share": 1.0},
    ]
    [picture] = pictured("signal_quality", {"reliability of the step score of a for b": bins})
    assert picture.rows[0] == ("0.0 to 0.1", "0.05", "25.0%", "14.2% to 40.2%", "40")
    assert (
        notes(picture).count(
            "scores 0.9 to 1.0: 100.0% right (51.0% to 100.0%), mean score 0.950, n = 4"
        )
        == 3
    )  # the interval, the dot and the bar
    assert pictured("signal_quality", {"reliability of nothing": []}) == []


def test_chunk_sizes_are_shares_of_each_methods_chunks() -> None:
    sizes = {"pass (process)": {"1": 30, "4": 10}, "pure (process)": {"2": 5}}
    [picture] = pictured("resolution", {"tokens_per_chunk": sizes})
    assert picture.rows == (
        ("pass (process)", "1", "30", "75.0%"),
        ("pass (process)", "4–7", "10", "25.0%"),
        ("pure (process)", "2–3", "5", "100.0%"),
    )
    assert "pass (process): 4–7 tokens, 10 chunks (25.0%)" in notes(picture)


def test_one_more_step_is_the_median_and_8_of_10_responses() -> None:
    change = [x / 10 for x in range(-5, 6)]
    series = {"one_more_step": {"pass, k = 0": {"worst": change, "typical": [], "best": [None, 2]}}}
    [picture] = pictured("length", series)
    assert picture.rows == (
        ("pass, k = 0", "worst", "-0.4", "+0", "+0.4", "45%", "11"),
        ("pass, k = 0", "best", "+2", "+2", "+2", "100%", "1"),
    )


def test_payment_stands_by_kind_and_then_by_method() -> None:
    each = {"value": 0.5, "low": 0.25, "high": 0.75, "count": 12}
    series = [
        {"method": method, "kind": kind, **each}
        for method in ("pass", "pure")
        for kind in ("right", "filler")
    ]
    series.append({"method": "pure", "kind": "wrong", **each, "value": None})
    [picture] = pictured("payment", {"payment": series})
    assert [row[:2] for row in picture.rows] == [
        ("right steps", "pass"),
        ("right steps", "pure"),
        ("filler steps", "pass"),
        ("filler steps", "pure"),
    ]
    assert "pure, filler steps: 0.5 (0.25 to 0.75), n = 12 steps" in notes(picture)


def test_differing_rows_are_counted_along_the_file() -> None:
    [picture] = pictured("conformance", {"rows that differ": {"pass": [0, 1, 79]}}, responses=80)
    assert picture.rows == (("pass", "3", "3.8%"),)
    assert notes(picture) == [
        "pass: 2 of the responses 1 to 2 differ",
        "pass: 1 of the responses 79 to 80 differ",
    ]


def test_conformance_is_pictured() -> None:
    rows = lab_rows("noisy", prompts=4)
    for row in rows:
        row["advantages"] = [0.125] * len(row["tokens"])
    batch, methods = LoggedBatch.of(rows), {"grpo": METHODS.build("grpo")}
    checks = {CONFORMANCE: lambda given: conformance_of(given.batch, given.methods)}
    series = audit(batch, methods, checks=checks).as_json()["checks"][CONFORMANCE]["series"]
    [picture] = series_pictures(CONFORMANCE, series, len(rows))
    assert picture.rows[0][0] == "grpo"


def test_hostile_names_stay_text() -> None:
    drawn = [
        *pictured(
            "payment",
            {
                "payment": [
                    {
                        "method": m,
                        "kind": HOSTILE,
                        "value": 1.0,
                        "low": None,
                        "high": None,
                        "count": 1,
                    }
                    for m in (HOSTILE, "pure")
                ]
            },
        ),
        *pictured("contamination", {"shares": {HOSTILE: {HOSTILE: 0.5, "b": 0.5}}}),
        *pictured("resolution", {"tokens_per_chunk": {HOSTILE: {"1": 2}}}),
        *pictured("methods", {"cosine": [[1.0, None], [None, 1.0]], "methods": [HOSTILE, "b"]}),
        *pictured("conformance", {"rows that differ": {HOSTILE: [0]}}),
        *pictured("length", {"one_more_step": {HOSTILE: {"worst": [1.0]}}}),
    ]
    assert len(drawn) == 6
    for picture in drawn:
        assert "<script" not in picture.svg
        assert picture.svg.count("</svg>") == 1
        assert "\u202e" not in picture.svg + "".join(map("".join, picture.rows))


def test_a_series_of_another_check_is_not_drawn() -> None:
    assert pictured("own_check", {"payment": 7, "cosine": "odd"}) == []
