"""A stream that a group lacks adds 0 there; one that no group has is refused, for a file too."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import reference
from tests.credit.strategies import Rows, batches, build, examples
from typer.testing import CliRunner

import stepcredit as sc
from stepcredit.cli import app
from stepcredit.errors import MethodError

few = examples(40)
READERS: dict[str, dict[str, Any]] = {
    "pass": {},
    "pass-min": {},
    "pure": {},
    "adca": {"alpha": 1.0},
    "grpo-process": {},
    "turn-return": {"gamma": 0.9},
    "redistribute": {"temperature": 0.5},
    "mix": {"second": "pure"},
    "sign-size": {"second": {"adca": {"alpha": 1.0}}},
}
READERS |= {
    f"grpo-process {pooling}": {"pooling": pooling} for pooling in ("process", "sum", "union")
}


def without_process(rows: Rows, group: str) -> Rows:
    """The rows, those of one group without their process signal."""
    return [
        {k: v for k, v in row.items() if not k.startswith("step_")}
        if row["group"] == group
        else row
        for row in rows
    ]


@pytest.mark.parametrize("name", READERS)
@few
@given(rows=batches(signals=("steps",), outcome="known"))
def test_a_group_without_the_process_stream_gets_the_other_terms(name: str, rows: Rows) -> None:
    rows = without_process(rows, "g0")
    if all(row["group"] == "g0" for row in rows):
        return
    method, params = name.split()[0], READERS[name]
    want = reference.advantages(method, params, rows)
    got = sc.estimator(method, **params)(build(rows)).ragged()
    for mine, loops in zip(got, want, strict=True):
        assert mine.tolist() == pytest.approx(loops, abs=1e-5)


ROWS: Rows = [
    {"group": "a", "length": 3, "step_ends": [0, 2], "step_scores": [0.9, 0.1], "outcome": 1.0},
    {"group": "a", "length": 2, "step_ends": [1], "step_scores": [0.4], "outcome": 0.0},
    {"group": "b", "length": 2, "signals": {"kl": {"scores": [0.5, 1.5]}}, "outcome": 0.0},
    {"group": "b", "length": 1, "signals": {"kl": {"scores": [0.7]}}, "outcome": 1.0},
    {
        "group": "c",
        "length": 2,
        "outcome": 0.0,
        "signals": {"kl": {"scores": [0.5, 1.5]}, "judge": {"scores": [0.25], "ends": [1]}},
    },
    {"group": "c", "length": 1, "signals": {"kl": {"scores": [0.7]}}, "outcome": 1.0},
]


@pytest.mark.parametrize(
    "method", ["pass", "pass-min", "pure", "adca", "grpo-process", "turn-return"]
)
def test_other_names_in_some_groups_refuse_nothing_where_one_has_process(method: str) -> None:
    found = sc.estimator(method)(build(ROWS)).packed()
    assert bool(found.isfinite().all())
    alone = sc.estimator(method)(build(ROWS[:2])).packed()
    assert torch.equal(found[: alone.numel()], alone)


@pytest.mark.parametrize(
    ("method", "line"),
    [
        (
            "pass",
            "weights: no stream is named 'process': give {name: weight} for kl, judge",
        ),
        ("pure", "reads one process stream, named 'process'; there are kl, judge"),
        ("adca", "reads one process stream, named 'process'; there are kl, judge"),
    ],
)
def test_other_names_in_all_groups_are_refused(method: str, line: str) -> None:
    for call in (sc.estimator(method), sc.estimator(method).explain):
        with pytest.raises(MethodError) as refused:
            call(build(ROWS[2:]))
        assert str(refused.value) == line


WEIGHTS = {"process": 1.0, "kl": 0.5, "outcome": 1.0}


def test_a_group_without_the_leading_stream_follows_its_first_weighted_one() -> None:
    led = sc.PASS(weights=WEIGHTS, chunks_from="process")
    first = sc.PASS(weights=WEIGHTS)
    assert torch.equal(led(build(ROWS)).packed(), first(build(ROWS)).packed())
    by_kl = sc.PASS(weights=WEIGHTS, chunks_from="kl")(build(ROWS)).ragged()
    assert [row.tolist() for row in by_kl[:2]] == [
        row.tolist() for row in first(build(ROWS[:2])).ragged()
    ]
    assert led.notes(build(ROWS))[-1] == (
        "2 of 3 groups lack the stream 'process': their chunks follow the first weighted one"
    )
    assert led.explain(build(ROWS)).warnings[-1] == led.notes(build(ROWS))[-1]
    assert not [note for note in led.notes(build(ROWS[:2])) if "lack" in note]


@few
@given(rows=batches(signals=("streams",), gaps=True), seed=st.integers(0, 1000))
def test_splitting_into_groups_moves_no_chunk(rows: Rows, seed: int) -> None:
    """A part of a batch is called with the moments of the whole, as a command does."""
    lead = Random(seed).choice(("process", "judge", "teacher"))
    weights = {"process": 1.0, "judge": 0.5, "teacher": 0.25, "outcome": 1.0}
    method = sc.PASS(weights=weights, chunks_from=lead)
    rollouts = build(rows)
    if lead not in {n for n, s in rollouts.streams.items() if s.values.numel()}:
        return
    whole = method(rollouts).ragged()
    params = {"weights": weights, "chunks_from": lead}
    for mine, loops in zip(whole, reference.advantages("pass", params, rows), strict=True):
        assert mine.tolist() == pytest.approx(loops, abs=1e-5)
    for label in {row["group"] for row in rows}:
        mine = [i for i, row in enumerate(rows) if row["group"] == label]
        part = method(rollouts.take(mine), moments=sc.Moments()).ragged()
        assert [a.tolist() for a in part] == [whole[i].tolist() for i in mine]


def test_a_leading_stream_that_no_group_has_is_refused() -> None:
    method = sc.PASS(weights={**WEIGHTS, "prm": 1.0}, chunks_from="prm")
    rollouts = build(ROWS)
    named = rollouts.with_streams({**rollouts.streams, "prm": sc.Tokens([[]] * len(ROWS))})
    for given_ in (rollouts, named):
        for call in (method, method.explain):
            with pytest.raises(MethodError) as refused:
                call(given_)
            assert str(refused.value) == "chunks_from: no group has the stream 'prm'"


def run(*words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(app, list(words))
    return ended.exit_code, ended.stderr


def write(path: Path, rows: Rows) -> str:
    path.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return str(path)


LED = ("--set", 'weights={"process":1,"kl":1,"judge":1}', "--set", "chunks_from=judge")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("words", [(), LED], ids=("plain", "led"))
def test_a_file_is_one_batch_in_any_order_of_its_groups(
    tmp_path: Path, seed: int, words: tuple[str, ...]
) -> None:
    rows = Random(seed).sample(ROWS, len(ROWS))
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    assert run("shape", source, "-o", str(output), *words) == (0, "")
    led = {"weights": {"process": 1, "kl": 1, "judge": 1}, "chunks_from": "judge"}
    want = sc.estimator("pass", **(led if words else {}))(build(rows)).ragged()
    got = [orjson.loads(line)["advantages"] for line in output.read_bytes().splitlines()]
    for mine, direct in zip(got, want, strict=True):
        assert mine == pytest.approx(direct.tolist(), abs=1e-6)
    for group in "abc":
        assert run("explain", source, "--group", group, *words)[0] == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("--set", 'weights={"process":1,"prm":1}', "--set", "chunks_from=prm"),
            "--set chunks_from: no group has the stream 'prm'",
        ),
        (
            ("--method", "adca"),
            "--method adca: reads one process stream, named 'process'; there are judge, kl",
        ),
        ((), "--set weights: no stream is named 'process': give {name: weight} for judge, kl"),
    ],
    ids=("chunks_from", "adca", "pass"),
)
def test_a_file_without_the_stream_is_refused_and_nothing_written(
    tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    source, output = write(tmp_path / "in.jsonl", ROWS[2:]), tmp_path / "out.jsonl"
    for command in (("shape", source, "-o", str(output)), ("explain", source, "--group", "b")):
        assert run(*command, *words) == (1, f"{source}:1: {line}\n")
    assert not output.exists()
