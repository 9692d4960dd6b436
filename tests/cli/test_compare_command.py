"""`stepcredit compare`: how far methods agree, and where they differ."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run, write


def test_compare_shows_where_methods_differ(run: Run, tmp_path: Path) -> None:
    rows = [
        {"group": i // 4, "step_ends": [1, 3], "step_scores": [i % 3, i % 2], "outcome": i % 2}
        for i in range(12)
    ]
    write(tmp_path / "in.jsonl", rows)
    ended = run("compare", "in.jsonl", "grpo", "grpo", "pass")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].split() == ["methods", "correlation", "same", "sign", "rank", "agreement"]
    assert lines[1].split() == ["grpo", "grpo", "1.000", "100.0%", "1.000"]
    assert lines[2].split()[:2] == ["grpo", "pass"]
    assert 0 < float(lines[2].split()[2]) < 1
    assert lines[-6].split() == ["line", "group", "grpo", "grpo", "pass"]
    assert lines[-1].split()[0].isdigit()


def test_compare_counts_a_trajectory_of_several_rows_once(run: Run, tmp_path: Path) -> None:
    scores = [(0.5, 1.0), (0.25, -1.0), (2.0, 0.0), (0.0, 0.75)]
    shared = [{"group": "q", "outcome": float(i % 2)} for i in range(len(scores))]
    whole = [
        row | {"step_ends": [1, 4], "step_scores": list(both)}
        for row, both in zip(shared, scores, strict=True)
    ]
    parts = [
        row | {"trajectory": i, "step_ends": [last], "step_scores": [score], "length": last + 1}
        for part, last in enumerate((1, 2))
        for i, (row, score) in enumerate(zip(shared, (both[part] for both in scores), strict=True))
    ]
    write(tmp_path / "whole.jsonl", whole)
    write(tmp_path / "parts.jsonl", parts)
    of_whole, of_parts = (run("compare", f"{n}.jsonl", "grpo", "pass") for n in ("whole", "parts"))
    assert (of_parts.code, of_parts.err) == (0, "")
    assert of_parts.out == of_whole.out  # line i of either is the first of trajectory i


def test_fields_of_a_method_stand_behind_its_name(run: Run, tmp_path: Path) -> None:
    scores = [[0.25, 1.0], [0.5, 0.0], [1.0, 1.0]]
    rows = [
        {"group": "q", "step_ends": [1, 3], "step_scores": own, "outcome": at % 2}
        for at, own in enumerate(scores)
    ]
    write(tmp_path / "in.jsonl", rows)
    weighed = 'pass:k=0.5,weights={"process": 0.0, "outcome": 1.0}'
    ended = run("compare", "in.jsonl", "pass:k=0.5,scope=process", weighed)
    assert (ended.code, ended.err) == (0, "")
    without = run("compare", "in.jsonl", "pass:k=0.5", weighed)
    assert without.out != ended.out
    faulty = run("compare", "in.jsonl", "pass:kk=0.5", "grpo")
    line = "METHOD pass:kk=0.5: kk: pass has no such field, did you mean 'k'?\n"
    assert (faulty.code, faulty.err) == (1, line)
