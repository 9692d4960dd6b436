"""The page: every number from the store, and the committed page from the committed store."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("trl")

from tests.study.fake_store import ORIGIN, SAMPLES, fill_store

from stepcredit.errors import FileError
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.model import build_model
from stepcredit.study import page_words
from stepcredit.study.agreement_check import check_agreement
from stepcredit.study.anchor import ANCHOR, read_anchor
from stepcredit.study.budget import preset_costs
from stepcredit.study.claim_verdicts import ClaimVerdict, decide, decide_one
from stepcredit.study.claims import read_claims_file
from stepcredit.study.collapse import has_collapsed, has_lost_pass_at_1, has_other_length
from stepcredit.study.equal_tokens import equal_tokens_difference, tokens_and_pass_at_1
from stepcredit.study.method_standings import cell_mark, method_standings
from stepcredit.study.overview import overview_rows
from stepcredit.study.page_pictures import FOLDER, write_pictures
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_figures import preset_curves_svg
from stepcredit.study.study_page import claim_figure, collapses, html_page, markdown_page
from stepcredit.study.study_presets import find_preset, preset_names
from stepcredit.study.study_statistics import Estimate
from stepcredit.study.study_store import Origin, StudyStore
from stepcredit.study.study_tables import arm_curves, cell_tables
from stepcredit.study.tuning import (
    both_rounds,
    candidates,
    choose,
    first_round,
    write_tuned,
)

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = read_claims_file(ROOT / "evidence" / "claims.yaml")
STORE, PAGE = ROOT / "evidence" / "study.sqlite", ROOT / "docs" / "evidence.md"
GAINS = {"pass": 0.12, "pass-min": 0.13, "pass:sum": 0.02, "reward-shaping": 0.12}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """A store of invented runs of `main` and `own`, in which the sum form collapses."""
    found = tmp_path_factory.mktemp("page") / "study.sqlite"
    for name in ("main", "own"):
        fill_store(found, find_preset(name, None), GAINS, collapse="pure-sum")
    return found


@pytest.fixture(scope="module")
def data(path: Path) -> StudyData:
    with StudyStore(path) as store:
        return StudyData(store)


def scores(path: Path, label: str, signal: str) -> dict[int, np.ndarray]:
    """Each seed's share of right answers by problem, read without any code of the study."""
    base = sqlite3.connect(path)
    rows = base.execute(
        "SELECT part.seed, evaluation.correct FROM part JOIN evaluation ON owner = part.key "
        "WHERE preset = 'main' AND task = 'arithmetic' AND label = ? AND signal = ?",
        (label, signal),
    ).fetchall()
    base.close()
    return {seed: np.frombuffer(blob, np.uint8) / SAMPLES for seed, blob in rows}


def test_tables_hold_the_figures_of_the_store(path: Path, data: StudyData) -> None:
    table = next(t for t in cell_tables("main", data) if t.signal == "noisy")
    hops = next(t for t in cell_tables("main", data) if t.task == "multihop")
    assert [name for name, _ in hops.rows[0].splits] == ["3 hops", "4 hops"]
    reference = scores(path, "grpo", "noisy")
    for row in table.rows:
        own = scores(path, row.label, "noisy")
        assert row.runs == len(own) == 10
        means = np.array([own[seed].mean() for seed in sorted(own)])
        assert row.pass_at_1.value == pytest.approx(means.mean())
        assert row.iqm.value == pytest.approx(np.sort(means)[2:-2].mean())
        assert row.pass_at_8.value == pytest.approx(np.mean([own[s] > 0 for s in own]))
        assert row.collapsed == (10 if row.label == "pure-sum" else 0)
        if row.difference is not None:
            dots = [(own[s] - reference[s]).mean() for s in sorted(own)]
            assert row.dots == pytest.approx(dots)
            assert row.difference.low < row.difference.value < row.difference.high
            assert row.difference.value == pytest.approx(np.mean(dots))


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


def test_the_size_that_the_page_states_is_that_of_the_runs() -> None:
    sizes = []
    for task in ("arithmetic", "multihop", "agent"):
        settings = LabSettings(task=task, compare=None)
        model = build_model(settings.built_task().build_tokenizer(), settings.warm.model)
        sizes.append(sum(weights.numel() for weights in model.parameters()) / 1e6)
    presets = [find_preset(name, None) for name in preset_names()]
    cells = [cell.settings for preset in presets for cell in preset.cells()]
    updates = {one.updates for one in cells}
    assert {one.prompts * one.group_size for one in cells} == {96}
    stated = f"{min(sizes):.2f} to {max(sizes):.2f} million parameters, trained for "
    stated += f"{min(updates)} to {max(updates)} updates of 96 answers"
    assert stated in page_words.SIZE_WORDS[0]


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


def test_the_overview_has_the_methods_that_ran_on_every_signal(data: StudyData) -> None:
    tables = cell_tables("main", data)
    rows = {row.label: row for row in overview_rows(tables)}
    assert {"warm start", "grpo", "pass", "pass:sum"} <= set(rows)
    assert not {"pass:steps", "pass:sum-matched"} & set(rows)
    by_signal: dict[tuple[str, str], list[float]] = {}
    for run in data.cell_runs("main", label="pass"):
        by_signal.setdefault((run.task, run.signal), []).append(run.pass_at_1)
    assert len(by_signal) == 4
    assert rows["pass"].mean[0] == pytest.approx(np.mean([np.mean(v) for v in by_signal.values()]))
    assert CLAIMS.published_by_arm["grpo"] in markdown_page(data, CLAIMS)


def test_the_page_says_what_its_names_mean_and_what_was_left_out(tmp_path: Path) -> None:
    path = tmp_path / "study.sqlite"
    fill_store(path, find_preset("base", None).slice(), {})
    with StudyStore(path) as store:
        page = markdown_page(StudyData(store), CLAIMS)
    assert "| `pass:center` | `pass` with operator = center |" in page
    assert "| `noisy` | a simulated reward model" in page
    assert "Left out: A baseline like REINFORCE++'s" in page
    assert "The same fusion over the baselines of GRPO" in page


def test_policies_stand_beside_their_warm_start_on_further_splits(data: StudyData) -> None:
    hops = next(t for t in cell_tables("main", data) if t.task == "multihop")
    assert [name for name, _ in hops.start.splits] == ["3 hops", "4 hops"]
    by_seed = {run.seed: run for run in data.cell_runs("main", task="multihop")}
    before = np.mean([run.record("before", "4 hops").pass_at_1 for run in by_seed.values()])
    assert dict(hops.start.splits)["4 hops"].value == pytest.approx(before, abs=1e-9)


def test_pages_hold_every_claim_and_every_arm(data: StudyData) -> None:
    pages = {"html": html_page(data, CLAIMS), "md": markdown_page(data, CLAIMS)}
    for text in pages.values():
        assert all(f"{c.source}" in text.replace("&#39;", "'") for c in CLAIMS.claims)
        assert all(word in text for word in ("pass:sum-matched", "not run yet", "10 of 10"))
        assert "nan" not in text.lower().replace("nanosecond", "")
    assert not re.search(r'(?:src|href)="(?!#)', pages["html"])
    assert pages["html"].count("<svg") == 2 * 9
    assert pages["md"] == markdown_page(data, CLAIMS)


def test_runs_agree_with_themselves_and_not_with_others(
    data: StudyData, path: Path, tmp_path: Path
) -> None:
    fill_store(tmp_path / "same.sqlite", find_preset("quick", None), GAINS)
    fill_store(tmp_path / "other.sqlite", find_preset("quick", None), {"pass": 0.4})
    with StudyStore(tmp_path / "same.sqlite") as store:
        same = check_agreement(StudyData(store), data)
    assert same.agrees
    assert all("equal" in line for line in same.lines)
    with StudyStore(tmp_path / "other.sqlite") as store:
        other = check_agreement(StudyData(store), data)
    assert not other.agrees
    assert any("pass: does not agree" in line for line in other.lines)


def test_tuning_runs_the_better_half_on_more_seeds_and_picks_one_that_never_collapsed(
    tmp_path: Path,
) -> None:
    preset, path = find_preset("tuning"), tmp_path / "study.sqlite"
    best = "pure [learning_rate=6e-05, process_weight=0.5]"
    worst = "pure-sum [learning_rate=0.00012, process_weight=0.3]"
    gains = {best: 0.3, worst: 0.5}
    cells = first_round(preset)
    assert {cell.seed for cell in cells} == {0}
    fill_store(path, preset, gains, worst, cells)
    with StudyStore(path) as store:
        cells = both_rounds(preset, StudyData(store))
    tuning = next(row for row in preset_costs(path, tmp_path / "none") if row.name == "tuning")
    assert tuning.runs == len({cell.key for cell in cells})
    labels = [{c.label for c in cells if (c.task, c.seed) == ("arithmetic", s)} for s in (0, 1)]
    assert len(labels[0]) == 2 * len(labels[1])
    assert best in labels[1]
    assert worst not in labels[1]
    fill_store(path, preset, gains, worst, cells)
    with StudyStore(path) as store:
        data = StudyData(store)
    tried = candidates(preset, data)["arithmetic"]
    for rows in tried.values():
        assert sorted(one.seeds for one in rows) == [1, 1, 1, 3, 3, 3]
    assert choose(tried["pure"]).arm.label == best
    assert choose(tried["pure-sum"]).seeds == 3
    write_tuned(preset, data, tmp_path / "tuned.yaml")
    cells = find_preset("main", tmp_path / "tuned.yaml").cells()
    chosen = {cell.label: cell.settings for cell in cells}
    assert chosen["pure"].learning_rate == 6e-5
    assert chosen["pure"].fields["process_weight"] == 0.5


def test_the_committed_page_is_that_of_the_committed_store(tmp_path: Path) -> None:
    """Every number of the page is derived again; without a committed store, from an empty one."""
    source = STORE if STORE.is_file() else tmp_path / "empty.sqlite"
    with StudyStore(source, create=source != STORE) as store:
        data = StudyData(store)
    anchor = read_anchor(ROOT / ANCHOR) if (ROOT / ANCHOR).is_file() else None
    text = markdown_page(data, CLAIMS, anchor)
    assert PAGE.read_text() == text
    assert all(claim.id for claim in CLAIMS.claims)
    assert text.count("**not run yet**") == len(CLAIMS.claims) or STORE.is_file()


def test_the_committed_pictures_are_those_of_the_committed_store() -> None:
    """Each says how many runs it is of, and the page shows all that there are."""
    linked = re.findall(rf"\]\({FOLDER}/(\S+)\)", PAGE.read_text())
    there = {path.name for path in (PAGE.parent / FOLDER).glob("*")}
    assert set(linked) == there
    with StudyStore(STORE) as store:
        runs = StudyData(store).runs
    for name in linked:
        preset = name.removesuffix(".svg").removesuffix("-curves")
        own = [run for run in runs if run.preset == preset]
        done = sum(run.status == "done" for run in own)
        about = re.search(r'aria-label="([^"]*)"', (PAGE.parent / FOLDER / name).read_text())
        assert about
        assert about[1].endswith(f", {preset}, {done} of {len(own)} runs")


def test_pictures_of_a_preset_are_files_that_show_collapses(
    data: StudyData, tmp_path: Path
) -> None:
    files = {path.name: path.read_text() for path in write_pictures(data, tmp_path / "new" / "a")}
    assert set(files) == {"main.svg", "main-curves.svg", "own.svg", "own-curves.svg"}
    assert "), 10 of 10 collapsed</text>" in files["main.svg"]
    assert ">pass:sum-matched</text>" in files["main.svg"]
    assert ">pass:sum-matched</text>" not in files["main-curves.svg"]  # of ten arms
    assert write_pictures(data, tmp_path)[0].read_text() in files.values()


def strokes(svg: str, panel: int) -> list[str]:
    """Colours of a panel's curves in their order; its grid has one colour for all."""
    group = svg.partition(f'<g id="axes_{panel}">')[2].partition('<g id="axes_')[0]
    found = re.findall(r'style="fill: none; stroke: (#\w{6}); stroke-width: 1\.6', group)
    return list(dict.fromkeys(found))


def test_a_method_has_one_colour_in_all_panels_of_a_preset(data: StudyData) -> None:
    first, second = cell_tables("main", data)[:2]
    one, two = (arm_curves(table, data)[:5] for table in (first, second))
    plain = preset_curves_svg("main", [(first, one), (second, two)])
    turned = preset_curves_svg("main", [(first, one), (second, two[::-1])])
    names = len(strokes(plain, 1))
    assert names == 5
    for panel in range(1, 9):
        other = strokes(turned, panel)
        assert strokes(plain, panel) == (other if panel <= 4 else other[::-1])


def test_turns_stand_beside_the_reward_where_the_task_has_tools(tmp_path: Path) -> None:
    path = tmp_path / "agent.sqlite"
    fill_store(path, find_preset("agent", None), {"gigpo": 0.1})
    with StudyStore(path) as store:
        data = StudyData(store)
    table = cell_tables("agent", data)[0]
    assert (table.start.turns, table.rows[0].turns) == (6.0, 5.0)
    curve = next(c for c in arm_curves(table, data) if c.label == "gigpo")
    assert curve.mean["turns"].tolist() == pytest.approx(
        [6 - i / 12 for i in range(1, 13)], abs=1e-4
    )
    page = markdown_page(data, CLAIMS)
    assert "| length | turns | fillers |" in page
    assert "| 28.0 | 6.00 | 0.50 |" in page
    drawn = html_page(data, CLAIMS)
    assert "<th>length<th>turns<th>fillers" in drawn
    assert "turns per answer" in drawn


def test_a_store_from_before_there_were_turns_is_read_and_not_changed(path: Path) -> None:
    before = path.read_bytes()
    with StudyStore(path) as store:
        assert store.added_figures() == {}
        assert "| length | fillers |" in markdown_page(StudyData(store), CLAIMS)
    assert path.read_bytes() == before


def test_a_merged_store_has_the_page_of_one_that_ran_everything(tmp_path: Path) -> None:
    whole, mine, theirs = (tmp_path / f"{name}.sqlite" for name in ("whole", "mine", "theirs"))
    quick, agent = (find_preset(name, None) for name in ("quick", "agent"))
    other = Origin("8 x other", "Python 3, torch 2", "def")
    with StudyStore(theirs, create=True) as store:  # its origins have other numbers
        store.fail(quick.cells()[0], "the machine was switched off", other)
    for path, presets in ((whole, (quick, agent)), (mine, (quick,)), (theirs, (agent,))):
        for preset in presets:
            fill_store(path, preset, GAINS)
    with StudyStore(mine) as store:
        assert store.merge(theirs) == len({cell.key for cell in agent.cells()})
        assert store.merge(theirs) == 0
        merged = StudyData(store)
    with StudyStore(whole) as store:
        expected = StudyData(store)
    assert markdown_page(merged, CLAIMS).startswith(
        markdown_page(expected, CLAIMS).partition("## Where the runs were made")[0]
    )
    ids = {row["id"]: row["hardware"] for row in merged.origins}
    with StudyStore(mine) as store:
        made = {row["origin"] for row in store.rows("SELECT origin FROM run")}
    assert {ids[number] for number in made} == {"2 x test"}


def test_a_merge_replaces_a_failed_run_and_refuses_what_is_no_store(tmp_path: Path) -> None:
    preset = find_preset("quick", None)
    mine, theirs = tmp_path / "mine.sqlite", tmp_path / "theirs.sqlite"
    fill_store(theirs, preset, GAINS)
    key = preset.cells()[0].key
    with StudyStore(mine, create=True) as store:
        store.fail(preset.cells()[0], "out of memory", ORIGIN)
        assert store.merge(theirs) == len({cell.key for cell in preset.cells()})
        assert store.statuses()[key] == "done"
        with pytest.raises(FileError, match=r"none\.sqlite: no such file"):
            store.merge(tmp_path / "none.sqlite")
        with pytest.raises(FileError, match=r"mine\.sqlite: is the store itself"):
            store.merge(tmp_path / "." / "mine.sqlite")
