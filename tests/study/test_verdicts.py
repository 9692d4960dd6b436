"""Verdicts on claims, how methods stand beside others, and what counts as a collapse."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("trl")

from tests.study.fake_store import GAINS, fill_store, scores

from stepcredit.study.claim_verdicts import ClaimVerdict, decide, decide_one
from stepcredit.study.claims import read_claims_file
from stepcredit.study.collapse import has_collapsed, has_lost_pass_at_1, has_other_length
from stepcredit.study.equal_tokens import equal_tokens_difference, tokens_and_pass_at_1
from stepcredit.study.method_standings import cell_mark, method_standings
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_page import claim_figure, collapses, html_page, markdown_page
from stepcredit.study.study_presets import find_preset
from stepcredit.study.study_statistics import Estimate
from stepcredit.study.study_store import Origin, StudyStore
from stepcredit.study.study_tables import cell_tables

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = read_claims_file(ROOT / "evidence" / "claims.yaml")
STORE, PAGE = ROOT / "evidence" / "study.sqlite", ROOT / "docs" / "evidence.md"


def test_verdicts_of_invented_runs(data: StudyData) -> None:
    found = {verdict.claim.id: verdict for verdict in decide(CLAIMS.claims, data)}
    assert found["pass-over-grpo"].verdict == "held"
    assert found["pass-over-grpo"].p is not None
    assert found["pass-over-grpo"].p < 0.05
    assert found["divide-length-prevents-collapse"].verdict == "held"
    assert found["pass-over-reward-shaping"].verdict == "undecided"
    assert found["sum-form-collapses"].verdict == "held"
    assert found["own-never-collapses"].verdict == "held"
    assert found["pass-distillation-transfer"].verdict == "held"
    assert found["own-never-collapses"].note.endswith(
        "0 of 65 with a collapse, 95 % upper bound 0.045; "
        "counted by warm start, 0 of 20 with a collapse, 95 % upper bound 0.139"
    )
    assert found["k-is-robust"].verdict == "not run yet"
    assert found["k-is-robust"].interim == ""


def test_a_verdict_is_interim_while_a_preset_of_it_has_no_run(data: StudyData) -> None:
    found = {verdict.claim.id: verdict for verdict in decide(CLAIMS.claims, data)}
    assert found["own-never-collapses"].interim == "hacking is not run yet"
    assert found["pass-over-grpo"].interim == ""
    for page in (html_page(data, CLAIMS), markdown_page(data, CLAIMS)):
        assert "interim: hacking is not run yet" in page


@pytest.mark.parametrize(
    ("low", "high", "metric", "verdict", "tie"),
    [
        (-0.03, 0.03, "pass_at_1", "undecided", True),
        (-0.01, 0.031, "pass_at_1", "undecided", False),
        (-0.01, 0.01, "pass_at_8", "undecided", False),
        (0.001, 0.02, "pass_at_1", "held", False),
    ],
)
def test_a_tie_is_undecided_with_no_larger_difference_left(
    low: float, high: float, metric: str, verdict: str, tie: bool
) -> None:
    claim = replace(CLAIMS.claims[0], metric=metric)
    found = ClaimVerdict(claim, verdict, Estimate((low + high) / 2, low, high, 10))
    assert found.is_tie == tie
    assert not ClaimVerdict(claim, "not run yet").is_tie


def test_a_difference_over_a_few_signals_is_shown_on_each(path: Path, data: StudyData) -> None:
    claim = next(claim for claim in CLAIMS.claims if claim.id == "pass-over-grpo")
    claim = replace(claim, task="arithmetic")
    found = decide_one(claim, data)
    assert [place for place, _ in found.by_signal] == [
        ("arithmetic", "noisy"),
        ("arithmetic", "hackable"),
    ]
    assert found.estimate is not None
    for (_, signal), one in found.by_signal:
        ours, theirs = (scores(path, label, signal) for label in claim.compare)
        differences = [ours[seed].mean() - theirs[seed].mean() for seed in ours]
        assert one.value == pytest.approx(np.mean(differences))
    assert found.estimate.value == pytest.approx(np.mean([one.value for _, one in found.by_signal]))
    shown = claim_figure(found)
    assert "; noisy +0." in shown
    assert "; hackable +0." in shown
    assert decide_one(replace(claim, signals=("noisy",)), data).by_signal == ()


def test_collapses_by_pass_at_1_and_by_length_are_told_apart(data: StudyData) -> None:
    table = next(t for t in cell_tables("main", data) if t.signal == "noisy")
    rows = {row.label: row for row in table.rows}
    assert collapses(rows["pure-sum"]) == "10 of 10 (pass@1: 10), at most 1.00"
    assert collapses(rows["pass"]) == "0 of 10, at most 0.26"
    (run, *_) = data.cell_runs("main", task="arithmetic", label="pass", signal="noisy")
    assert run.after is not None
    ((split, record),) = run.after.items()
    longer = replace(record, figures={**record.figures, "length": 50.0})
    padded = replace(run, after={split: longer})
    assert (has_collapsed(padded), has_lost_pass_at_1(padded)) == (True, False)
    assert (has_collapsed(run), has_other_length(run)) == (False, False)


def test_a_method_that_collapsed_in_another_preset_does_not_qualify(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    for name in ("main", "own"):
        fill_store(path, find_preset(name, None), {"pass-min": 0.4})
    claim = next(claim for claim in CLAIMS.claims if claim.kind == "most")
    with StudyStore(path) as store:
        assert method_standings(claim, StudyData(store))[0].qualifies
    fill_store(path, find_preset("hacking", None), {}, collapse="pass-min")
    with StudyStore(path) as store:
        best = method_standings(claim, StudyData(store))[0]
    assert (best.label, best.is_good_in_most, best.qualifies) == ("pass-min", True, False)
    assert (best.collapsed, best.runs) == (0, 65)
    assert (best.all_collapsed, best.all_runs) == (24, 89)


def test_cpu_times_of_other_machines_are_not_compared(tmp_path: Path) -> None:
    claim = next(claim for claim in CLAIMS.claims if claim.id == "no-latency-alone")
    path, preset = tmp_path / "study.sqlite", find_preset("main", None)
    fill_store(path, preset, GAINS)
    slow = Origin("8 x other", "Python 3, torch 2", "def")
    with StudyStore(path) as store:
        assert decide_one(claim, StudyData(store)).verdict == "held"  # all took 30 s
    base = sqlite3.connect(path)
    given = (slow.hardware, slow.versions, slow.git_commit)
    base.execute("INSERT INTO origin (hardware, versions, git_commit) VALUES (?, ?, ?)", given)
    moved = "seed < 105 OR seed = 105 AND signal = 'hackable'"
    base.execute(f"UPDATE run SET cpu_seconds = 90, origin = 2 WHERE method = 'pass' AND ({moved})")
    base.commit()
    base.close()
    both = replace(claim, signals=("noisy", "hackable"))
    with StudyStore(path) as store:
        found = [decide_one(one, StudyData(store)).estimate for one in (claim, both)]
    assert [(one.value, one.n) for one in found if one] == [(0.0, 5), (0.0, 4)]


def test_a_method_stands_beside_the_best_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    for name in ("main", "own"):
        fill_store(path, find_preset(name, None), {"pass-min": 0.4}, collapse="pure-sum")
    claim = next(claim for claim in CLAIMS.claims if claim.kind == "most")
    with StudyStore(path) as store:
        data = StudyData(store)
    found = {standing.label: standing for standing in method_standings(claim, data)}
    assert next(iter(found)) == "pass-min"
    assert len(found) == 7
    assert found["pass-min"].count("best or tied") == len(found["pass-min"].cells) == 9
    assert found["pass-min"].qualifies
    assert found["pure-sum"].count("below") == len(found["pure-sum"].cells) == 4
    assert found["pure-sum"].collapsed == found["pure-sum"].runs == 40
    assert not any(standing.qualifies for label, standing in found.items() if label != "pass-min")
    page = markdown_page(data, CLAIMS)
    assert "**pass-min, by these runs.**" in page
    assert "| `pass-min` | 9 | 0 | 0 | 0 of 65 | 0 of 65 |" in page
    assert "| `pure-sum` | 0 | 4 | 0 | 40 of 40 | 40 of 40 |" in page
    assert decide_one(claim, data).verdict == "held"


def test_runs_are_compared_at_equal_tokens() -> None:
    def run(length: float, scores: tuple[float, ...]) -> SimpleNamespace:
        rows = [
            {"update": 10 * (i + 1), "length": length, "pass_at_1": score}
            for i, score in enumerate(scores)
        ]
        return SimpleNamespace(curve=rows, costs={"tokens": 1000 * length * len(scores)})

    short, long = run(10, (0.1, 0.2, 0.3)), run(20, (0.2, 0.4, 0.6))
    tokens, scores = tokens_and_pass_at_1(long)
    assert tokens.tolist() == [10_000, 30_000, 50_000]
    assert scores.tolist() == [0.2, 0.4, 0.6]
    # the short one's last row is around its token 25,000, where the long one is at 0.35
    found = equal_tokens_difference([(short, long), (short, long)])
    assert found.value == pytest.approx(0.3 - 0.35)
    assert equal_tokens_difference([(long, short)]).value == pytest.approx(0.35 - 0.3)
    grown = run(10, (0.1, 0.2))
    grown.curve[1]["length"] = 30  # its rows hold 1/4 and 3/4 of its tokens
    grown.costs["tokens"] = 40_000
    assert tokens_and_pass_at_1(grown)[0].tolist() == [5_000, 25_000]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.001, 0.2, "best or tied"),
        (-0.03, 0.03, "best or tied"),
        (-0.02, -0.005, "best or tied"),
        (-0.04, -0.005, "below"),
        (-0.04, 0.01, "not shown"),
        (-0.01, 0.04, "not shown"),
    ],
)
def test_what_an_interval_says_of_a_cell(low: float, high: float, expected: str) -> None:
    assert cell_mark(Estimate((low + high) / 2, low, high, 10), 0.03) == expected


def test_a_method_that_lacks_signals_does_not_qualify_by_those_it_has(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    for name in ("main", "own"):
        fill_store(path, find_preset(name, None), {"grpo-process": 0.5})
    claim = next(claim for claim in CLAIMS.claims if claim.kind == "most")
    with StudyStore(path) as store:
        found = method_standings(claim, StudyData(store))
    best = next(standing for standing in found if standing.label == "grpo-process")
    assert best.count("best or tied") == len(best.cells) == 4
    assert (best.collapsed, best.all_cells) == (0, 9)
    assert not best.qualifies
