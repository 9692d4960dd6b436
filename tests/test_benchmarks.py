"""The benchmarks of shaping: paths agree, bars are checked, documents show the table."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from stepcredit.audit.logged_batch import LoggedBatch

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/trainers.md")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks by name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return import_module


def rows_of(found: Any) -> Any:
    """A table of advantages; the rows of verl's queue padded to one."""
    if isinstance(found, list):
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    return found


@pytest.mark.parametrize("kind", ["STEPS", "TOKENS"])
def test_every_path_gives_the_same_advantages(scripts: Any, kind: str) -> None:
    c, batch = scripts("contenders"), scripts("batches").Batch(40, 90)
    runs = c.core(batch) | c.engines(batch)
    names = [getattr(c, f"{path}_{kind}") for path in ("PADDED", "PASS", "TRL", "QUEUE")]
    first, *others = [rows_of(runs[name]()) for name in names if name in runs]
    assert first.abs().max() > 0
    assert len(others) >= 2
    for found in others:
        torch.testing.assert_close(found, first[:, : found.shape[1]], rtol=0, atol=0)


def test_every_contender_is_in_the_list(scripts: Any) -> None:
    c, batch = scripts("contenders"), scripts("batches").Batch(8, 16)
    runs = c.core(batch) | c.engines(batch) | c.metrics(batch) | c.verl_functions(batch)
    assert runs.keys() <= set(c.NAMES)
    assert set(c.NAMES) - runs.keys() <= {c.VECTORIZED, c.VERL_GRPO, c.VERL_GAE}


def test_a_batch_has_the_same_signal_packed_and_padded(scripts: Any) -> None:
    batch = scripts("batches").Batch(20, 70)
    packed, padded = batch.packed(batch.steps), batch.padded(**batch.step_tables)
    for name in ("ends", "values", "counts"):
        one, other = (getattr(each.streams["process"], name) for each in (packed, padded))
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert padded.left_out == 0


def test_the_minimum_counts_and_the_spread_is_that_of_the_lower_quartile(scripts: Any) -> None:
    times = scripts("interleaved").Times([4.0, 2.0, 8.0, 3.0, 9.0], [1.0, 5.0, 5.0, 5.0, 5.0])
    assert (times.least, times.spread) == (2.0, 0.5)
    on_gpu = replace(times, on_gpu=True)
    assert (on_gpu.least, on_gpu.spread) == (1.0, 4.0)


def made_times(scripts: Any, **by_name: float) -> Any:
    """Times of contenders by the names of their constants."""
    c, kind = scripts("contenders"), scripts("interleaved").Times
    return {getattr(c, name): kind([value], [value]) for name, value in by_name.items()}


def test_a_figure_above_its_bar_is_missed_and_one_that_was_not_run_is_left_out(
    scripts: Any,
) -> None:
    bars = scripts("speed_bars")
    at = made_times(scripts, COPY=1.0, PASS_STEPS=2.9, PASS_TOKENS=41.0)
    ratios = {ratio.name: ratio.is_met for ratio in bars.cpu_ratios({bars.MAIN: at})}
    assert ratios == {
        "PASS packed in, steps / tensor copy": True,
        "PASS packed in, tokens / tensor copy": False,
    }


def test_the_bars_of_a_gpu_are_five_milliseconds_or_verls_time_and_the_growth(
    scripts: Any,
) -> None:
    bars = scripts("speed_bars")
    few = made_times(scripts, PADDED_STEPS=4.0, PADDED_TOKENS=9.0, VECTORIZED=5.0)
    many = made_times(scripts, PADDED_STEPS=72.0, PADDED_TOKENS=18.0, VECTORIZED=5.0)
    found = list(bars.gpu_ratios({bars.MAIN: few, bars.GPU_LARGE: many}))
    assert [ratio.is_met for ratio in found] == [True, False, False, True]
    assert [ratio.most for ratio in found] == pytest.approx([7.5, 17.6, 7.5, 17.6])


def test_what_runs_on_a_gpu_runs_on_a_cpu(scripts: Any) -> None:
    plan = replace(scripts("shaping").PLANS["cuda"], sizes=((8, 16), (16, 32)))
    found = list(plan.ratios(plan.measure("cpu", rounds=1)))
    assert len(found) == 4
    assert all(ratio.value > 0 for ratio in found)


def test_a_missed_bar_is_named_and_fails_the_check(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shaping = scripts("shaping")
    monkeypatch.setattr(shaping, "restart_under", lambda settings: None)
    missed = scripts("speed_bars").Ratio("a / b", 2.0, 1.0)
    plan = shaping.Plan(((8, 16),), (shaping.c.core,), lambda times: iter([missed]))
    monkeypatch.setattr(shaping, "SMOKE", {"cuda": plan, "cpu": plan})
    monkeypatch.setattr(shaping, "memory_in_fresh_process", lambda: iter(()))
    monkeypatch.setattr(sys, "argv", ["shaping.py", "--smoke"])
    shaping.main()
    monkeypatch.setattr(sys, "argv", ["shaping.py", "--smoke", "--check"])
    with pytest.raises(SystemExit, match="a / b"):
        shaping.main()
    assert "MISSED" in capsys.readouterr().out


def test_the_script_starts_and_measures_memory() -> None:
    command = [sys.executable, "benchmarks/shaping.py", "--peak-memory"]
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the system does not tell a process's peak memory")
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.9 < float(run.stdout) < 20


def test_two_checkouts_take_turns() -> None:
    command = [sys.executable, "benchmarks/before_after.py", "--smoke", "--rounds", "1"]
    run = subprocess.run(
        [*command, "--beside", str(ROOT)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "PASS packed in, steps" in run.stdout
    assert "left out" not in run.stderr
    refused = subprocess.run(
        [*command, "--beside", str(ROOT / "tests")], cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "--beside names the root of another checkout" in refused.stderr


def between(text: str, marks: tuple[str, str]) -> str:
    begin, end = marks
    assert (text.count(begin), text.count(end)) == (1, 1)
    return text.split(begin)[1].split(end)[0].strip()


def first_cells(table: str) -> Iterator[str]:
    """The heading row whole, and the first cell of every other row."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    yield from lines[:2]
    yield from (line.split("|")[1].strip() for line in lines[2:])


@pytest.mark.parametrize("path", DOCUMENTS)
def test_documents_show_the_scripts_table(scripts: Any, path: str) -> None:
    tables = scripts("speed_tables")
    table = between((ROOT / path).read_text(), tables.MARKS)
    assert list(first_cells(table)) == list(first_cells(tables.markdown({}, [])))
    assert "verl" in table.splitlines()[-2], "the table is that of a run without verl"


def test_all_documents_show_the_same_run(scripts: Any) -> None:
    marks = scripts("speed_tables").MARKS
    assert len({between((ROOT / path).read_text(), marks) for path in DOCUMENTS}) == 1


def test_a_document_gets_the_table_between_its_marks(scripts: Any, tmp_path: Path) -> None:
    tables = scripts("speed_tables")
    document = tmp_path / "page.md"
    document.write_text("before\n{}\nold\n{}\nafter\n".format(*tables.MARKS))
    tables.write(document, "| new \\1 |")
    assert document.read_text() == "before\n{}\n| new \\1 |\n{}\nafter\n".format(*tables.MARKS)
    document.write_text("no marks")
    with pytest.raises(SystemExit, match="once each"):
        tables.write(document, "| new |")


def test_growth_is_measured_for_every_path_and_shape(scripts: Any) -> None:
    growth = scripts("growth")
    found = {"ms": growth.times(1, smoke=True)}
    if scripts("interleaved").can_measure_memory():
        found["MB"] = growth.memory_in_own_process(smoke=True)
    for by_shape in found.values():
        assert set(by_shape) == {growth.SIZES[0], growth.LONGER}
        for by_path in by_shape.values():
            assert set(by_path) == set(growth.PATHS)
            assert all(len(figures) == 3 and min(figures) > 0 for figures in by_path.values())


def test_memory_may_step_where_a_batch_first_needs_two_blocks(scripts: Any) -> None:
    figures = {"a": {"fine": [4.0, 8.0, 40.0], "bad": [4.0, 8.0, 100.0]}}
    assert list(scripts("growth").missed({"MB": figures})) == ["bad, a: MB 4, 8, 100"]


def test_growth_beyond_the_bar_is_named(scripts: Any) -> None:
    figures = {"one group": {"good": [1.0, 4.0, 16.0], "bad": [1.0, 4.0, 20.0]}}
    assert list(scripts("growth").missed({"ms": figures})) == ["bad, one group: ms 1, 4, 20"]


@pytest.mark.parametrize("scale", [1, 4])
def test_shapes_of_growing_batches_have_that_many_times_the_tokens(
    scripts: Any, scale: int
) -> None:
    growth = scripts("growth")
    for shape in growth.shapes(smoke=False):
        batch = growth.batch_of(shape, scale, smoke=False)
        assert batch.rows * batch.width == scale * growth.ROWS * growth.WIDTH
    sizes = [growth.batch_of(shape, scale, smoke=False).group_size for shape in growth.SIZES]
    assert sizes == [8, 64, 512, 512 * scale, 1]


def test_the_audit_is_measured_by_part() -> None:
    command = [sys.executable, "benchmarks/audit.py", "--quick", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    parts = dict(found["cpu_seconds"])
    total = parts.pop("total")
    assert {"reading", "page", "contamination", "length", "rest"} <= parts.keys()
    assert sum(parts.values()) == pytest.approx(total)
    assert 0 < found["peak_gb"] < 4
    assert found["missed"] == []


def test_an_audit_beyond_its_bars_is_named(scripts: Any) -> None:
    audit = scripts("audit")
    slow = {"cpu_seconds": {audit.TOTAL: 61.0}, "peak_gb": 4.5}
    assert len(audit.missed(slow, "steps")) == 2
    assert len(audit.missed(slow, "tokens")) == 1
    assert len(audit.missed(slow, "steps", scale=2.0)) == 1


@pytest.mark.parametrize("signal", ["steps", "tokens"])
def test_the_generated_log_of_the_audit_follows_the_format(scripts: Any, signal: str) -> None:
    rows = list(scripts("audit").log_rows(16, 60, signal))
    lengths = [len(row["tokens"]) for row in rows]
    assert min(lengths) >= 25
    assert {row["group"] for row in rows} == {"prompt-0", "prompt-1"}
    assert all(row["text"] == "".join(row["tokens"]) for row in rows)
    streams = LoggedBatch.of(rows).rollouts.streams
    assert [stream.kind for stream in streams.values()] == [signal]
