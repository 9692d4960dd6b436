"""Bad input: the whole line on stderr, the exit code, and an output folder left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.bad_rows import GOOD, ROWS
from tests.cli.conftest import Run


@pytest.mark.parametrize("case", ROWS)
def test_a_bad_row_is_refused(case: str, run: Run, tmp_path: Path) -> None:
    content, expected = ROWS[case]
    (tmp_path / "bad.jsonl").write_bytes(content)
    (tmp_path / "out.jsonl").write_text("kept")
    for command in (("shape", "bad.jsonl", "-o", "out.jsonl"), ("validate", "bad.jsonl")):
        ended = run(*command)
        assert (ended.code, ended.out, ended.err) == (1, "", f"bad.jsonl:{expected}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "kept"


METHODS = {
    "unknown method": (["--method", "pas"], "--method pas: unknown method 'pas', "
                       "did you mean 'pass'?"),
    "unknown field": (["--set", "kk=1"], "--set kk: pass has no such field, did you mean 'k'?"),
    "below the range": (["--set", "k=-1"], "--set k: expected a number of at least 0, got -1"),
    "not a number": (["--set", "k=NaN"], "--set k: expected a number of at least 0, got nan"),
    "bool for a number": (["--set", "k=true"],
                          "--set k: expected a number of at least 0, got True"),
    "string for a number": (["--set", "k=much"],
                            "--set k: expected a number of at least 0, got 'much'"),
    "number for a flag": (["--set", "gate=1"], "--set gate: expected true or false, got 1"),
    "unknown choice": (["--set", "scope=all"],
                       "--set scope: expected one of fused, process, got 'all'"),
    "not finite": (["--set", "k=1e400"], "--set k: expected a number of at least 0, got inf"),
    "a list for a name": (["--set", "chunks_from=[1]"],
                          "--set chunks_from: expected a string or null, got [1]"),
    "words for weights": (
        ["--set", "weights=much"],
        "--set weights: expected three numbers (process, outcome, format) or {stream: number}, "
        "got 'much'",
    ),
    "unknown operator": (
        ["--set", "operator=median"],
        "--set operator: unknown operator 'median': expected masked_norm, center, "
        "leave_one_out, abs_max",
    ),
    "results beyond float32": (
        ["--set", "weights=[0, 1e39, 0]"],
        "in.jsonl:1: advantages: the method gives inf, which is not a finite number",
    ),
    "twice": (["--set", "k=1", "--set", "k=2"], "--set k: is given twice"),
    "nested too deep": (
        ["--set", "weights=" + "[" * 5000], "--set weights: more than 100 lists and objects"
    ),
    "more than 64 bits": (
        ["--method", "pure", "--set", f"max_length={2**63}"],
        "--set max_length: expected a whole number of at least 1 and at most 9223372036854775807 "
        "or null, got 9223372036854775808",
    ),
    "no equals sign": (["--set", "k"], "--set k: expected FIELD=VALUE"),
    "a field that is needed": (
        ["--method", "pure", "--set", "baseline=per_slot"],
        "--set max_length: baseline='per_slot' needs it",
    ),
    "a stream where none goes": (
        ["--method", "gdpo", "--set", 'weights={"process": 1}'],
        "--set weights: gdpo takes outcome and format alone, not 'process'",
    ),
    "a process stream is missing": (
        ["--method", "adca"],
        "in.jsonl:1: --method adca: adca needs a process stream",
    ),
    "a method inside is unknown": (
        ["--method", "mix", "--set", "second=pas"],
        "--set second: unknown method 'pas', did you mean 'pass'?",
    ),
    "a field of a method inside": (
        ["--method", "mix", "--set", 'second={"pass": {"kk": 1}}'],
        "--set second.kk: pass has no such field, did you mean 'k'?",
    ),
    "a method inside needs a process stream": (
        ["--method", "mix", "--set", "second=adca"],
        "in.jsonl:1: --set second: adca needs a process stream",
    ),
    "log-probs of a method inside are missing": (
        ["--method", "mix", "--set", "second=opd"],
        "in.jsonl:1: student_logprobs: missing: opd needs it (and 1 more group)",
    ),
    "log-probs are missing": (
        ["--method", "opd"],
        "in.jsonl:1: student_logprobs: missing: opd needs it (and 1 more group)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", METHODS)
def test_a_bad_method_is_refused(case: str, run: Run, tmp_path: Path) -> None:
    arguments, expected = METHODS[case]
    other = GOOD.replace(b'"group": 1', b'"group": 2')
    wrong = GOOD.replace(b"1.0", b"0.0")
    content = GOOD + GOOD + other if case.startswith("log-probs") else GOOD + wrong
    (tmp_path / "in.jsonl").write_bytes(content)
    ended = run("shape", "in.jsonl", "-o", "out.jsonl", *arguments)
    assert (ended.code, ended.out, ended.err) == (1, "", f"{expected}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_missing_outcome_is_told_by_its_line(run: Run, tmp_path: Path) -> None:
    without = b'{"group": %d, "length": 2}\n'
    content = GOOD + without % 2 + b"\n" + without % 3 + GOOD + without % 3
    (tmp_path / "in.jsonl").write_bytes(content)
    ended = run("shape", "in.jsonl", "-o", "out.jsonl", "--method", "grpo")
    assert ended.err == "in.jsonl:2: outcome: missing: grpo needs it (and 1 more group)\n"
    assert (ended.code, (tmp_path / "out.jsonl").exists()) == (1, False)


FILES = {
    "missing": ("none.jsonl", "none.jsonl: no such file or directory"),
    "a folder": ("folder", "folder: is a directory"),
    "empty": ("empty.jsonl", "empty.jsonl: there are no rollouts in it"),
    "blank": ("blank.jsonl", "blank.jsonl: there are no rollouts in it"),
    "not gzip": (
        "plain.jsonl.gz",
        "plain.jsonl.gz: is not a whole gzip file: Not a gzipped file (b'{\"')",
    ),
    "cut gzip": (
        "cut.jsonl.gz",
        "cut.jsonl.gz: is not a whole gzip file: Compressed file ended before the "
        "end-of-stream marker was reached",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_refused(case: str, run: Run, tmp_path: Path) -> None:
    import gzip

    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "blank.jsonl").write_text("\n \n")
    (tmp_path / "plain.jsonl.gz").write_bytes(GOOD)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(GOOD * 99)[:-9])
    name, expected = FILES[case]
    for command in (("shape", name, "-o", "out.jsonl"), ("validate", name)):
        ended = run(*command)
        assert (ended.code, ended.out, ended.err) == (1, "", f"{expected}\n")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_bad_parquet_file_is_refused(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "bad.parquet").write_bytes(GOOD)
    ended = run("validate", "bad.parquet")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("bad.parquet: is not a Parquet file: ")
    assert ended.err.count("\n") == 1


def test_parquet_without_pyarrow_names_the_extra(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "in.parquet").touch()
    ended = run("validate", "in.parquet")
    expected = "Parquet files need pyarrow: pip install 'stepcredit[parquet]'\n"
    assert (ended.code, ended.out, ended.err) == (1, "", expected)


OUTPUTS = {
    "none/out.jsonl": "none/out.jsonl: no such file or directory",
    "folder": "folder: is a directory",
    "/proc/out.jsonl": "/proc/out.jsonl: no such file or directory",
    "/dev/full": "/dev/full: no space left on device",
}


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_bad_output_is_refused(output: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(GOOD)
    (tmp_path / "folder").mkdir()
    ended = run("shape", "in.jsonl", "-o", output)
    assert (ended.code, ended.out, ended.err) == (1, "", f"{OUTPUTS[output]}\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "in.jsonl"]


def test_a_full_disk_leaves_the_old_output(start_process: Run, tmp_path: Path) -> None:
    """The shell's limit on the size of files stands in for the disk's end."""
    (tmp_path / "in.jsonl").write_bytes(GOOD * 20_000)
    (tmp_path / "out.jsonl").write_text("kept")
    limited = ("bash", "-c", 'ulimit -f 64; exec "$@"', "-")
    ended = start_process("shape", "in.jsonl", "-o", "out.jsonl", prefix=limited)
    assert (ended.code, ended.out, ended.err) == (1, "", "out.jsonl: file too large\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "kept"


PARSER = (
    ["shape", "in.jsonl"],
    ["shape", "in.jsonl", "-o", "out.jsonl", "--what"],
    ["explain", "in.jsonl"],
    ["compare", "in.jsonl", "pass"],
    ["nothing"],
)


@pytest.mark.parametrize("arguments", PARSER, ids=" ".join)
def test_what_the_parser_refuses_ends_with_2(arguments: list[str], run: Run) -> None:
    ended = run(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Usage: " in ended.err
