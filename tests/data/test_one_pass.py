"""`shape` reads an ordinary file once, and writes the same bytes as when it reads it twice."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.credit.strategies import examples

import stepcredit as sc
from stepcredit.data.files.batches import Batch
from stepcredit.data.files.lines import Line, Source
from stepcredit.data.files.results import by_row
from stepcredit.errors import RowError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("passes")


def rows_of_kinds(random: Random, *, one_kind: bool = False) -> list[dict[str, Any]]:
    """Groups whose streams are of different kinds, so that several batches are open at once."""
    rows: list[dict[str, Any]] = []
    for group in range(random.randint(1, 12)):
        kind = "steps" if one_kind else random.choice(["steps", "tokens", "none"])
        for _ in range(random.randint(2, 4)):
            row: dict[str, Any] = {"group": group, "note": "é", "loss_mask": [1, 0, 1]}
            row["outcome"] = float(random.randint(0, 1))
            if random.random() < 0.3:
                row["advantages"] = [9.0, 9.0, 9.0]
            if kind == "steps":
                row |= {"step_ends": [0, 2], "step_scores": [random.random(), 0.25]}
            elif kind == "tokens":
                row |= {"token_scores": [random.random(), 0.25, 0.5]}
            rows.append(row)
    return rows


def members(batch: Batch) -> Iterator[dict[str, Any]]:
    """The members that `shape` writes, for `annotate`, which reads a file twice."""
    for values in by_row(batch.rows, METHOD(batch.rollouts)):
        yield {"advantages": values}


METHOD = sc.PASS()


@given(st.integers(0, 2**20), st.booleans(), st.sampled_from([1, 5, 20, 10**6]))
@examples(40)
def test_one_pass_writes_what_two_passes_write(
    folder: Path, seed: int, scattered: bool, batch_tokens: int
) -> None:
    random = Random(seed)
    rows = rows_of_kinds(random)
    if scattered:
        random.shuffle(rows)
    path, one, two = (folder / name for name in ("in.jsonl", "one.jsonl", "two.jsonl"))
    sc.write_rollouts(path, rows)
    with sc.RolloutFile(path, batch_tokens=batch_tokens) as file:
        assert file.annotate(two, members) == len(rows)
        assert file.shape(one, METHOD) == len(rows)
    assert one.read_bytes() == two.read_bytes()
    with sc.RolloutFile(path, batch_tokens=batch_tokens) as file:
        assert file.shape(one.with_suffix(".jsonl.gz"), METHOD) == len(rows)
        assert file.shape(path, METHOD) == len(rows)  # in place
    assert gzip.decompress(one.with_suffix(".jsonl.gz").read_bytes()) == two.read_bytes()
    assert path.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_an_ordinary_file_is_read_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of_kinds(Random(3), one_kind=True)
    sc.write_rollouts(tmp_path / name, rows)
    read: list[int] = []
    lines = Source.lines

    def counted(source: Source) -> Iterator[Line]:
        for line in lines(source):
            read.append(line.position)
            yield line

    monkeypatch.setattr(Source, "lines", counted)
    with sc.RolloutFile(tmp_path / name, batch_tokens=10) as file:
        file.shape(tmp_path / "out.jsonl", METHOD)
    assert read == list(range(len(rows)))


def test_a_fault_in_the_last_row_leaves_the_output_and_no_other_file(tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    sc.write_rollouts(path, rows_of_kinds(Random(1)))
    with path.open("a") as file:
        file.write('{"group": "last"}\n')
    out.write_text("as it was")
    with sc.RolloutFile(path, batch_tokens=1) as read, pytest.raises(RowError, match="length"):
        read.shape(out, METHOD)
    assert out.read_text() == "as it was"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_an_error_of_the_method_is_not_one_of_the_output(folder: Path) -> None:
    def failing(_: sc.Rollouts) -> sc.Advantages:
        raise ConnectionResetError("the reward server has gone")

    source, out = folder / "server.jsonl", folder / "failed.jsonl"
    sc.write_rollouts(source, [{"group": 1, "length": 2, "outcome": 1.0}])
    for output in (out, out.with_suffix(".parquet")):  # read once, and twice
        with (
            sc.RolloutFile(source) as file,
            pytest.raises(ConnectionResetError, match=r"\Athe reward server has gone\Z"),
        ):
            file.shape(output, failing)
        assert not output.exists()
    assert [path.name for path in folder.glob(".*.part")] == []
