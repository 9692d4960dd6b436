"""The steps of a run: in files, in a file's column, and behind an `@`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.audit.made_runs import Row, lab_run, step_rows, verl_rows, write_lines

from stepcredit.audit.logged_step import LoggedStep, RunLog
from stepcredit.audit.run_log import batch_of, run_log
from stepcredit.audit.step_column import StepColumn, step_name
from stepcredit.errors import FileError, RolloutError, RowError, SettingError, StepCreditError

LONG_AGO = 1_000_000_000


def found(path: Path) -> RunLog:
    log = run_log(path)
    assert log is not None
    return log


def names(log: RunLog) -> list[str]:
    return [str(step.name) for step in log.steps()]


def sizes(log: RunLog) -> dict[str, int]:
    return {str(step.name): len(batch.rows) for step in log.steps() if (batch := step.read())}


def reason_of(step: LoggedStep) -> str:
    with pytest.raises(StepCreditError) as caught:
        step.read()
    return str(caught.value)


def test_a_training_run_is_split_by_policy_and_update(tmp_path: Path) -> None:
    log = found(lab_run(tmp_path, (1, 20), ("pass", "grpo")))
    assert names(log) == ["pass 1", "pass 20", "grpo 1", "grpo 20"]
    assert set(sizes(log).values()) == {16}
    step = log.steps()[1]
    assert step.place.endswith("rollouts.jsonl, lines 17 to 32")
    batch = step.read()
    assert batch is not None
    assert [row.line for row in batch.rows] == list(range(17, 33))
    assert log.notes() == []


def test_files_of_steps_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for step in (10, 2, 1):
        write_lines(tmp_path / f"{step}.jsonl", verl_rows(step))
    log = found(tmp_path)
    assert names(log) == ["1", "2", "10"]
    assert sizes(log) == {"1": 6, "2": 6, "10": 6}


def test_our_trainers_files_and_a_second_generation_of_a_step(tmp_path: Path) -> None:
    for name in ("rollouts-000000", "rollouts-000005-1", "rollouts-000005"):
        write_lines(tmp_path / f"{name}.jsonl", step_rows(1))
    write_lines(tmp_path / "earlier-1" / "rollouts-000000.jsonl", step_rows(1))
    assert names(found(tmp_path)) == ["0", "5", "5-1"]


def test_one_file_with_a_step_column_of_another_tool(tmp_path: Path) -> None:
    rows = [row for step in (3, 4) for row in verl_rows(step, step=step)]
    write_lines(tmp_path / "dump.jsonl", rows)
    log = found(tmp_path)
    assert sizes(log) == {"3": 6, "4": 6}


def test_a_log_without_steps_is_no_run(tmp_path: Path) -> None:
    write_lines(tmp_path / "dump.jsonl", verl_rows(1))
    assert run_log(tmp_path) is None
    assert run_log(tmp_path / "dump.jsonl") is None
    assert len(batch_of(str(tmp_path)).rows) == 6


def test_of_two_files_of_a_step_the_newer_is_read(tmp_path: Path) -> None:
    write_lines(tmp_path / "rollouts-5.jsonl", step_rows(5)[:8])
    old = write_lines(tmp_path / "rollouts-005.jsonl", step_rows(5))
    os.utime(old, (LONG_AGO, LONG_AGO))
    log = found(tmp_path)
    assert sizes(log) == {"5": 8}
    [note] = log.notes()
    assert "rollouts-005.jsonl and rollouts-5.jsonl are both step 5: rollouts-5.jsonl" in note


def test_a_step_that_appears_again_has_its_later_rows(tmp_path: Path) -> None:
    rows = step_rows(1) + step_rows(2) + step_rows(1, seed=9)[:12]
    log = found(write_lines(tmp_path / "rollouts.jsonl", rows).parent)
    assert sizes(log) == {"pass 1": 12, "pass 2": 16}
    [note] = log.notes()
    assert "step pass 1 stands in lines 1 to 16 and again from line 33: the later" in note


@pytest.mark.parametrize(
    ("broken", "spoiled"),
    [(3, {"pass 1"}), (16, {"pass 1", "pass 2"}), (48, {"pass 3"})],
    ids=["inside", "between", "at the end"],
)
def test_a_broken_line_spoils_the_steps_around_it_alone(
    tmp_path: Path, broken: int, spoiled: set[str]
) -> None:
    path = write_lines(tmp_path / "rollouts.jsonl", step_rows(1) + step_rows(2) + step_rows(3))
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:broken], '{"group": 1, "update\n', *lines[broken:]]))
    log = found(tmp_path)
    assert names(log) == ["pass 1", "pass 2", "pass 3"]
    for step in log.steps():
        if str(step.name) in spoiled:
            assert f"rollouts.jsonl:{broken + 1}: is not JSON" in reason_of(step)
        else:
            assert step.read() is not None


def test_a_row_that_breaks_a_rule_spoils_its_step_alone(tmp_path: Path) -> None:
    rows = step_rows(1) + step_rows(2)
    rows[20]["step_ends"] = [5, 2]
    log = found(write_lines(tmp_path / "rollouts.jsonl", rows).parent)
    first, second = log.steps()
    assert first.read() is not None
    assert "rollouts.jsonl:21: " in reason_of(second)


def test_whether_a_step_may_still_grow(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rollouts.jsonl", step_rows(1) + step_rows(2))
    assert [step.state for step in found(tmp_path).steps()] == ["whole", "open"]
    os.utime(path, (LONG_AGO, LONG_AGO))
    assert [step.state for step in found(tmp_path).steps()] == ["whole", "whole"]
    path.write_text(path.read_text() + '{"group": 1, "upd')
    assert [step.state for step in found(tmp_path).steps()] == ["whole", "half-written"]


def test_a_changed_step_has_another_stamp(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rollouts.jsonl", step_rows(1) + step_rows(2)[:8])
    log = found(tmp_path)
    before = log.steps()
    write_lines(path, step_rows(1) + step_rows(2))
    after = log.steps()
    assert before[0].stamp == after[0].stamp
    assert before[1].stamp != after[1].stamp


def trl_table(path: Path, step: int, rows: list[Row]) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    table = [{"step": str(step), **row} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), path)


def test_a_table_of_trl_that_repeats_the_one_before_is_left_out(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{at // 2}", "completion": f"a{at}", "right": float(at % 2), "advantage": 0.5}
        for at in range(4)
    ]
    trl_table(tmp_path / "completions_00001.parquet", 1, rows)
    trl_table(tmp_path / "completions_00002.parquet", 2, rows)
    trl_table(tmp_path / "completions_00003.parquet", 3, [{**r, "completion": "b"} for r in rows])
    (tmp_path / "completions_00004.parquet").write_bytes(b"PAR1 torn")
    first, second, third, torn = found(tmp_path).steps()
    assert first.read() is not None
    assert second.read() is None
    assert third.read() is not None
    assert "completions_00004.parquet" in reason_of(torn)


def test_a_file_none_of_whose_rows_can_be_used(tmp_path: Path) -> None:
    write_lines(tmp_path / "1.jsonl", verl_rows(1))
    write_lines(tmp_path / "2.jsonl", [{**row, "output": ""} for row in verl_rows(2)])
    write_lines(tmp_path / "3.jsonl", [])
    first, second, third = found(tmp_path).steps()
    assert first.read() is not None
    assert reason_of(second).endswith("2.jsonl: none of its responses can be used")
    assert reason_of(third).endswith("3.jsonl: there are no rollouts in it")


def test_a_folder_without_rollouts_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"no rollouts of a run in this folder: expected .*jsonl"):
        run_log(tmp_path)
    write_lines(tmp_path / "metrics.jsonl", [{"update": 1, "reward": 0.5}])
    write_lines(tmp_path / "timing.jsonl", [{"update": 1, "seconds": 0.5}])
    write_lines(tmp_path / "dump" / "1.jsonl", verl_rows(1))
    with pytest.raises(FileError, match=r"no rollouts of a run .*; .*dump holds some$"):
        run_log(tmp_path)


@pytest.mark.parametrize("given", [1.5, True, "one", None, float("nan")])
def test_a_step_that_is_no_number_is_refused(given: Any) -> None:
    with pytest.raises(RolloutError, match="step: expected the step's number"):
        step_name({"step": given}, "step")


def test_a_file_whose_rows_name_no_step(tmp_path: Path) -> None:
    rows = [{"group": 1, "length": 2}]
    path = write_lines(tmp_path / "in.jsonl", rows)
    with pytest.raises(FileError, match="no row names its step"):
        StepColumn(path).steps()
    path.write_text("no json\n")
    with pytest.raises(RowError, match="is not JSON"):
        StepColumn(path).steps()


def test_one_step_of_a_run_by_its_name(tmp_path: Path) -> None:
    run = str(lab_run(tmp_path / "run", (1, 20), ("pass", "grpo")))
    assert batch_of(f"{run}@pass:20").source == f"{run}@pass:20"
    assert [row.line for row in batch_of(f"{run}@grpo:1").rows] == list(range(33, 49))
    assert batch_of(run).source == f"{run}@grpo:20"
    assert batch_of(f"{run}@first").source == f"{run}@pass:1"
    assert batch_of(f"{run}/rollouts.jsonl@pass:1").rows[0].line == 1
    assert len(batch_of(f"{run}/rollouts.jsonl").rows) == 64
    with pytest.raises(SettingError, match="expected pass:20, grpo:20"):
        batch_of(f"{run}@20")
    with pytest.raises(FileError, match="has no step 7: its steps are pass:1, pass:20, grpo:1"):
        batch_of(f"{run}@7")
    with pytest.raises(FileError, match="no such file or folder"):
        batch_of(str(tmp_path / "other@7"))
