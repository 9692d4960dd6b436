"""The anchor's part of the page, and files that it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

from scipy import stats
from tests.study.fake_store import fill_store

from stepcredit.errors import FileError, StepCreditError
from stepcredit.study.anchor import SETTINGS, read_anchor
from stepcredit.study.claims import ClaimsFile
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_page import html_page, markdown_page
from stepcredit.study.study_presets import find_preset
from stepcredit.study.study_store import StudyStore

SHARES = {
    "start": (0.25, 0.3, 0.2),
    "pass": (0.5, 0.6, 0.7),
    "grpo": (0.4, 0.55, 0.45),
}


def content() -> dict[str, Any]:
    """The start and two methods on three seeds."""
    runs: list[dict[str, Any]] = [
        {"method": method, "seed": 100 + i, "pass_at_1": share, "length": 40.0 + i}
        for method, values in SHARES.items()
        for i, share in enumerate(values)
    ]
    for run in runs[3:]:
        run["seconds_per_step"] = 36.0
    return {**dict.fromkeys(SETTINGS, "x"), "steps": 100, "runs": runs}


def written(tmp_path: Path, given: dict[str, Any]) -> Path:
    path = tmp_path / "anchor.json"
    path.write_text(json.dumps(given))
    return path


def test_rows_have_means_seeds_and_the_paired_interval(tmp_path: Path) -> None:
    anchor = read_anchor(written(tmp_path, content()))
    start, ours, reference = anchor.rows()
    assert (ours.method, ours.each, ours.length) == ("pass", SHARES["pass"], 41.0)
    assert (start.pass_at_1, ours.pass_at_1) == pytest.approx((0.25, 0.6))
    assert (start.difference, reference.difference) == (None, None)
    assert anchor.hours == pytest.approx(6 * 36 * 100 / 3600)
    found = ours.difference
    assert found is not None
    gains = [a - b for a, b in zip(SHARES["pass"], SHARES["grpo"], strict=True)]
    half = stats.t.ppf(0.975, 2) * stats.sem(gains)
    mean = sum(gains) / 3
    assert [found.value, found.low, found.high] == pytest.approx([mean, mean - half, mean + half])


def test_both_pages_have_the_anchor_only_if_there_is_one(tmp_path: Path) -> None:
    store = tmp_path / "study.sqlite"
    fill_store(store, find_preset("quick", None), {})
    with StudyStore(store) as opened:
        data = StudyData(opened)
    anchor = read_anchor(written(tmp_path, content()))
    for page in (html_page, markdown_page):
        text = page(data, ClaimsFile({}, ()), anchor)
        assert "A real model" in text
        assert "0.500, 0.600, 0.700" in text
        assert "no proof" in text
        assert "A real model" not in page(data, ClaimsFile({}, ()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda given: given.pop("model"), "model: is missing"),
        (lambda given: given["runs"].pop(), "expected one run per method and seed"),
        (lambda given: given["runs"].append(given["runs"][0]), "expected one run per method"),
        (lambda given: given["runs"][0].pop("length"), "length: is missing"),
        (lambda given: given.update(runs=given["runs"][:6]), "no run of grpo"),
        (lambda given: given.update(runs=given["runs"][3:]), "no run of start"),
        (lambda given: given.update(runs=[]), "no run of start"),
    ],
)
def test_a_file_that_lacks_something_is_refused(tmp_path: Path, change: Any, reason: str) -> None:
    given = content()
    change(given)
    with pytest.raises(StepCreditError, match=reason) as refused:
        read_anchor(written(tmp_path, given))
    assert "anchor.json" in str(refused.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read_anchor(tmp_path / "none.json")
