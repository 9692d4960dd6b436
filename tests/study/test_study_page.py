"""The page: every number from the store, and the committed page from the committed store."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trl")

from tests.study.fake_store import GAINS, ORIGIN, fill_store, scores

from stepcredit.errors import FileError
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.model import build_model
from stepcredit.study import page_words
from stepcredit.study.agreement_check import check_agreement
from stepcredit.study.anchor import ANCHOR, read_anchor
from stepcredit.study.budget import preset_costs
from stepcredit.study.claims import read_claims_file
from stepcredit.study.overview import overview_rows
from stepcredit.study.page_pictures import FOLDER, write_pictures
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_figures import preset_curves_svg
from stepcredit.study.study_page import html_page, markdown_page
from stepcredit.study.study_presets import find_preset, preset_names
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
    for name in ("base", "matched"):
        fill_store(path, find_preset(name, None).slice(), {})
    with StudyStore(path) as store:
        page = markdown_page(StudyData(store), CLAIMS)
    assert "| `pass:center` | `pass` with operator = center |" in page
    assert "| `noisy` | a simulated reward model" in page
    assert "Left out: A matched sum beside" in page
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
