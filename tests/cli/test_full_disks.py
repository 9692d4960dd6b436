"""A disk that is full or can't be written: the line names the place that is at fault.

A limit on the size of files stands in for a full disk.
"""

from __future__ import annotations

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Ended, Run, write

ROWS: list[dict[str, Any]] = [
    {"group": i % 1500, "text": f"1 + 1 = <<1+1=2>>2 {i}", "outcome": i % 2} for i in range(3000)
]
TOKENS = [row | {"length": 4} for row in ROWS]
TEMPORARY = "temporary files in {tmp}: file too large; set TMPDIR to a folder with more room\n"
FULL = {
    "validate - < in.jsonl": TEMPORARY,
    "validate in.jsonl.gz": TEMPORARY,
    "validate in.parquet": TEMPORARY,
    "shape in.jsonl -o -": TEMPORARY,
    "shape in.jsonl -o /dev/null": TEMPORARY,
    "shape in.jsonl -o out.jsonl": "out.jsonl: file too large\n",
    "shape in.jsonl -o out.parquet": "out.parquet: file too large\n",
    "score text.jsonl -o out.jsonl --signal equations --cache c.sqlite": "c.sqlite: disk I/O "
    "error\n",
    "score text.jsonl -o out.jsonl --signal equations": "what was scored is kept in "
    ".out.jsonl.scored.sqlite: run the same command to continue\n"
    ".out.jsonl.scored.sqlite: disk I/O error\n",
}


@pytest.fixture
def small_disk(tmp_path: Path, run_process: Run) -> Callable[[str], Ended]:
    """Runs a command where no file may be longer than 16 kB."""
    (tmp_path / "tmp").mkdir()
    write(tmp_path / "in.jsonl", TOKENS)
    write(tmp_path / "text.jsonl", ROWS)
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress((tmp_path / "in.jsonl").read_bytes()))
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(
        arrow.Table.from_pylist(TOKENS), tmp_path / "in.parquet"
    )

    def run(line: str) -> Ended:
        command, _, given = line.partition(" < ")
        return run_process(
            *command.split(),
            streams={0: given} if given else {},
            variables={"TMPDIR": str(tmp_path / "tmp")},
            largest_file=16 << 10,
        )

    return run


@pytest.mark.parametrize("line", FULL)
def test_a_full_disk_is_told_by_its_place(
    line: str, small_disk: Callable[[str], Ended], tmp_path: Path
) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    assert small_disk(line) == Ended(1, "", FULL[line].format(tmp=tmp_path / "tmp"))
    left = {path.name for path in tmp_path.iterdir()} - before
    assert {name for name in left if "sqlite" not in name} == set()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_no_folder_for_temporary_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.jsonl", TOKENS)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    reason = "no such file or directory; set TMPDIR to a folder that can be written"
    ended = run("validate", "-", stdin=(tmp_path / "in.jsonl").read_bytes())
    assert ended == Ended(1, "", f"temporary files: {reason}\n")


def test_a_journal_that_cannot_be_read_says_what_to_do(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS[:4])
    journal = tmp_path / ".out.jsonl.scored.sqlite"
    journal.write_text("no database at all")
    ended = run("score", "in.jsonl", "-o", "out.jsonl", "--signal", "equations")
    advice = "this file of an earlier run is damaged: delete it to start over"
    expected = f"{journal.name}: {advice}\n{journal.name}: file is not a database\n"
    assert ended == Ended(1, "", expected)
    assert journal.read_text() == "no database at all"
    journal.unlink()
    assert run("score", "in.jsonl", "-o", "out.jsonl", "--signal", "equations").code == 0


def test_a_damaged_cache_says_what_to_do(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    words = ("score", "in.jsonl", "-o", "out.jsonl", "--signal", "equations", "--cache", "c.sqlite")
    assert run(*words).code == 0
    content = bytearray((tmp_path / "c.sqlite").read_bytes())
    content[5000:60000] = b"z" * 55000
    (tmp_path / "c.sqlite").write_bytes(content)
    assert run(*words) == Ended(1, "", "c.sqlite: is damaged; delete the file\n")
