"""Small files that would unpack to gigabytes are refused in one line, within little memory."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.test_files_memory import CHILD

import stepcredit as sc
from stepcredit.errors import RowError, SettingError, StepCreditError

LIMIT_MB = 1200
"""Of heap and private maps; `import stepcredit.cli` and Arrow take about 250 MB of it."""


def gzipped(path: Path, block: bytes, megabytes: int) -> None:
    with gzip.open(path, "wb") as out:
        for _ in range(megabytes * (1 << 20) // len(block)):
            out.write(block)


def zeros(path: Path) -> None:
    gzipped(path, bytes(1 << 20), 100)


def tiny_rows(path: Path) -> None:
    gzipped(path, b'{"group":1,"length":1}\n' * 50_000, 20)


def many_lists(path: Path) -> None:
    gzipped(path, b'{"group":1,"length":1,"x":[' + b"[]," * 4_000_000 + b"0]}\n", 30)


def many_texts(path: Path) -> None:
    gzipped(path, b'{"group":1,"length":1,"x":[' + b'"ab",' * 400_000 + b"0]}\n", 60)


def many_signals(path: Path) -> None:
    signals = ",".join(f'"k{index}":{{"scores":[0.5]}}' for index in range(100_000))
    row = '{"group":1,"length":1,"signals":{' + signals + "}}\n"
    path.write_text(row + '{"group":1,"length":1}\n' * 500)


def bare_lengths(path: Path) -> None:
    path.write_text('{"group":1,"length":100000000,"outcome":1}\n' * 3)


def parquet_of(column: str, values: Callable[[], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        array = values()
        labels = pa.array([1] * len(array), pa.int8())
        pq.write_table(pa.table({"group": labels, "length": labels, column: array}), path)

    return write


def zeros_in(rows: int, length: int) -> object:
    import numpy as np
    import pyarrow as pa

    ends = pa.array(np.arange(rows + 1) * length)
    return pa.LargeListArray.from_arrays(ends, pa.array(np.zeros(rows * length, np.int8)))


def nothings(length: int) -> object:
    """One row: a list of so many nulls, which take no bytes in Arrow."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(pa.array([0, length], pa.int32()), pa.nulls(length))


def one_text(rows: int, size: int) -> object:
    import numpy as np
    import pyarrow as pa

    indices = pa.array(np.zeros(rows, np.int32))
    return pa.DictionaryArray.from_arrays(indices, pa.array(["x" * size]))


def set_to(limit: str) -> str:
    return f": set STEPCREDIT_MAX_{limit} to allow more"


BOMBS: dict[str, tuple[str, Callable[[Path], None], str, str]] = {
    "zeros": ("a.jsonl.gz", zeros, ":1: a line of 67108865 bytes or more", set_to("LINE_BYTES")),
    "tiny rows": ("a.jsonl.gz", tiny_rows, ": group: the rows", set_to("GROUP_BYTES")),
    "many lists": ("a.jsonl.gz", many_lists, ":2: group: the rows", set_to("GROUP_BYTES")),
    "many texts": ("a.jsonl.gz", many_texts, ": group: the rows", set_to("GROUP_BYTES")),
    "many signals": ("a.jsonl", many_signals, ":1: signals: 100000 sig", set_to("SIGNALS")),
    "bare lengths": ("a.jsonl", bare_lengths, ":1: length: 100000000", set_to("GROUP_TOKENS")),
    "a list of zeros": (
        "a.parquet",
        parquet_of("loss_mask", lambda: zeros_in(1, 40_000_000)),
        ": loss_mask.list.element: 40000000 values in a column",
        set_to("PARQUET_VALUES"),
    ),
    "a long list": (
        "a.parquet",
        parquet_of("loss_mask", lambda: zeros_in(1, 30_000_000)),
        ":1: a ",
        set_to("LINE_BYTES"),
    ),
    "a list of nulls": (
        "a.parquet",
        parquet_of("x", lambda: nothings(30_000_000)),
        ":1: a ",
        set_to("LINE_BYTES"),
    ),
    "one text in many rows": (
        "a.parquet",
        parquet_of("text", lambda: one_text(100_000, 900_000)),
        ": the first ",
        set_to("UNPACKED_BYTES"),
    ),
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_within_little_memory(bomb: str, tmp_path: Path) -> None:
    name, write, start, end = BOMBS[bomb]
    write(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 3 << 20
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    if bomb == "one text in many rows":
        environment["STEPCREDIT_MAX_UNPACKED_BYTES"] = str(100 << 20)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(LIMIT_MB), "compare", name, "pass", "grpo"],
        env={**os.environ, **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    told = done.stderr.removesuffix("\n").partition(" (and ")[0]
    assert told.startswith(name)
    assert start in told
    assert told.endswith(end)
    assert int(done.stdout) < LIMIT_MB


ROW = b'{"group": 1, "token_scores": [0.5, 0.25, 1.0]}\n'


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_at_the_limit_is_read_and_one_beyond_is_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    content = ROW + b"\n" + ROW
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    monkeypatch.setenv("STEPCREDIT_MAX_LINE_BYTES", str(len(ROW) - 1))
    assert len(list(sc.read_rows(path))) == 2
    monkeypatch.setenv("STEPCREDIT_MAX_LINE_BYTES", str(len(ROW) - 2))
    with pytest.raises(RowError) as raised:
        sc.read_rollouts(path)
    assert str(raised.value) == (
        f"{path}:1: a line of {len(ROW) - 1} bytes or more, more than {len(ROW) - 2}: "
        "set STEPCREDIT_MAX_LINE_BYTES to allow more"
    )


def test_a_larger_file_may_hold_a_longer_row(tmp_path: Path) -> None:
    """Tokens that lists hold one by one are not counted, however many they are."""
    path = tmp_path / "a.jsonl"
    mask = b"1," * 1_999_999 + b"1"
    path.write_bytes(b'{"group": 1, "loss_mask": [' + mask + b"]}\n" + ROW * 10)
    assert sc.read_rollouts(path).lengths.tolist() == [2_000_000] + [3] * 10


def test_a_fault_before_the_limit_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"group": 1}\n' + ROW)
    monkeypatch.setenv("STEPCREDIT_MAX_LINE_BYTES", "20")
    with pytest.raises(RowError, match=r":1: length: missing.*\(and 1 more fault\)$"):
        sc.read_rollouts(path)


@pytest.mark.parametrize("given", ["0", "-1", "1e6", "", "many", "\u0661"])
def test_a_limit_that_is_no_number_is_refused(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_bytes(ROW)
    monkeypatch.setenv("STEPCREDIT_MAX_SIGNALS", given)
    with pytest.raises(SettingError) as raised:
        sc.read_rollouts(tmp_path / "a.jsonl")
    expected = f"STEPCREDIT_MAX_SIGNALS: expected a whole number from 1, got {given!r}"
    assert str(raised.value) == expected


def test_a_parquet_file_has_a_most_of_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setenv("STEPCREDIT_MAX_PARQUET_COLUMNS", "3")
    row = {"group": 1, "length": 1, "a": 1}
    sc.write_rollouts(tmp_path / "a.parquet", [row])
    with pytest.raises(StepCreditError, match=r"a\.parquet: 4 columns, more than 3: set STEPC"):
        sc.write_rollouts(tmp_path / "a.parquet", [row | {"b": 1}])
    assert list(sc.read_rows(tmp_path / "a.parquet")) == [row]
