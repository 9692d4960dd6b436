"""Bad input: the whole line on stderr, the exit code, and an output folder left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run

GOOD = b'{"group": 1, "length": 2, "outcome": 1.0}\n'
STEPS = b'{"group": 1, "step_ends": [1, 3], "step_scores": [0.5, 0.25]'
NO_JSON = "bad.jsonl:1: is not JSON: "

ROWS: dict[str, tuple[bytes, str]] = {
    "nan": (b'{"group": 1, "length": 2, "outcome": NaN}', "1: outcome: NaN is not a finite number"),
    "infinity": (
        b'{"group": 1, "token_scores": [0.5, -Infinity]}',
        "1: token_scores: -Infinity at index 1 is not a finite number",
    ),
    "overflow": (
        b'{"group": 1, "token_scores": [1e400]}',
        "1: token_scores: Infinity at index 0 is not a finite number",
    ),
    "beyond float32": (
        b'{"group": 1, "length": 1, "outcome": 1e39}',
        "1: outcome: 1e+39 is too large for float32",
    ),
    "huge integer": (
        b'{"group": 1, "token_scores": [NaN, 1' + b"0" * 400 + b"]}",
        "1: token_scores: NaN at index 0 is not a finite number",
    ),
    "nan in a signal": (
        b'{"group": 1, "signals": {"judge": {"scores": [NaN]}}}',
        "1: signals.judge.scores: NaN at index 0 is not a finite number",
    ),
    "nan in log-probs": (
        b'{"group": 1, "teacher_logprobs": [-0.5, NaN]}',
        "1: teacher_logprobs: NaN at index 1 is not a finite number",
    ),
    "length disagrees": (
        b'{"group": 1, "length": 3, "token_scores": [0.5, 0.5]}',
        "1: token_scores: 2 values, but the response has 3 tokens",
    ),
    "token ids disagree": (
        b'{"group": 1, "token_ids": [7, 8, 9], "tokens": ["a", "b"]}',
        "1: tokens: 2 values, but the response has 3 tokens",
    ),
    "log-probs disagree": (
        b'{"group": 1, "student_logprobs": [-1, -2], "teacher_logprobs": [-1]}',
        "1: teacher_logprobs: 1 values, but the response has 2 tokens",
    ),
    "length and mask disagree": (
        b'{"group": 1, "length": 3, "loss_mask": [1, 0, 1]}',
        "1: length: 3, but loss_mask trains 2",
    ),
    "stale advantages": (
        b'{"group": 1, "length": 3, "advantages": [0.5]}',
        "1: advantages: 1 values, but the response has 3 tokens",
    ),
    "scores and ends": (
        b'{"group": 1, "step_ends": [1, 3], "step_scores": [0.5]}',
        "1: step_scores: 1 scores, but 2 step ends",
    ),
    "ends out of order": (
        b'{"group": 1, "step_ends": [3, 1], "step_scores": [0.5, 0.5]}',
        "1: step_ends: 1 follows 3: ends must increase",
    ),
    "ends repeat": (
        b'{"group": 1, "step_ends": [1, 1], "step_scores": [0.5, 0.5]}',
        "1: step_ends: 1 follows 1: ends must increase",
    ),
    "end below zero": (
        b'{"group": 1, "step_ends": [-1, 1], "step_scores": [0.5, 0.5]}',
        "1: step_ends: -1 is before the first token",
    ),
    "ends past the end": (
        b'{"group": 1, "length": 3, "step_ends": [1, 3], "step_scores": [0.5, 0.5]}',
        "1: step_ends: last step ends at 3, but the response's last token is 2",
    ),
    "ends before the end": (
        b'{"group": 1, "length": 5, "step_ends": [1, 3], "step_scores": [0.5, 0.5]}',
        "1: step_ends: last step ends at 3, but the response's last token is 4",
    ),
    "ends far past the end": (
        b'{"group": 1, "step_ends": [1000000000000], "step_scores": [0.5]}',
        "1: step_ends: 1000000000001 tokens, expected at most 100000000",
    ),
    "no steps": (
        b'{"group": 1, "length": 2, "step_ends": [], "step_scores": []}',
        "1: step_ends: expected at least one step",
    ),
    "no tokens": (
        b'{"group": 1, "length": 0, "outcome": 1}',
        "1: length: a response needs at least one trained token",
    ),
    "no token scores": (
        b'{"group": 1, "token_scores": []}',
        "1: token_scores: a response needs at least one trained token",
    ),
    "no trained token": (
        b'{"group": 1, "loss_mask": [0, 0]}',
        "1: loss_mask: a response needs at least one trained token",
    ),
    "mask of twos": (b'{"group": 1, "loss_mask": [1, 2]}', "1: loss_mask: expected only 0 and 1"),
    "length unknown": (
        b'{"group": 1, "outcome": 1}',
        "1: length: missing, and no other field tells it",
    ),
    "half-known outcomes": (
        GOOD + GOOD + b'{"group": "1", "length": 2, "outcome": null}',
        "3: outcome: unknown, but known for others of its group",
    ),
    "half-known formats": (
        b'{"group": 1, "length": 2}\n{"group": 1, "length": 2, "format": 1}',
        "1: format: unknown, but known for others of its group",
    ),
    "half-known outcomes far apart": (
        b'{"group": 1, "length": 2}\n{"group": 2, "length": 1}\n' + GOOD,
        "1: outcome: unknown, but known for others of its group",
    ),
    "two kinds in a group": (
        STEPS + b'}\n{"group": 1, "token_scores": [1]}',
        "2: token_scores: a score a token, but line 1 of its group has a score a step",
    ),
    "two kinds of a signal": (
        b'{"group": 1, "signals": {"j": {"scores": [1]}}}\n'
        b'{"group": 1, "signals": {"j": {"advantages": [1]}}}',
        "2: signals.j: advantages, but line 1 of its group has a score a token",
    ),
    "both process signals": (
        STEPS + b', "token_scores": [1, 1, 1, 1]}',
        "1: token_scores: stands beside step_scores: expected one of them",
    ),
    "scores without ends": (
        b'{"group": 1, "length": 2, "step_scores": [1]}',
        "1: step_ends: missing, and step_scores need it",
    ),
    "group missing": (b'{"length": 2}', "1: group: missing"),
    "group is true": (
        b'{"group": true, "length": 2}',
        "1: group: expected a string or an integer, got true",
    ),
    "group is a fraction": (
        b'{"group": 1.5, "length": 2}',
        "1: group: expected a string or an integer, got 1.5",
    ),
    "bool for a number": (
        b'{"group": 1, "length": 2, "outcome": true}',
        "1: outcome: expected a number or null, got true",
    ),
    "string for a number": (
        b'{"group": 1, "length": 2, "outcome": "1"}',
        '1: outcome: expected a number or null, got "1"',
    ),
    "bool among numbers": (
        b'{"group": 1, "token_scores": [0.5, true]}',
        "1: token_scores: expected numbers, got true at index 1",
    ),
    "string among numbers": (
        b'{"group": 1, "token_scores": ["x"]}',
        '1: token_scores: expected numbers, got "x" at index 0',
    ),
    "null among numbers": (
        b'{"group": 1, "token_scores": [null]}',
        "1: token_scores: expected numbers, got null at index 0",
    ),
    "number for a list": (
        b'{"group": 1, "token_scores": 3}',
        "1: token_scores: expected a list of numbers, got 3",
    ),
    "fraction for an end": (
        b'{"group": 1, "step_ends": [1.0], "step_scores": [1]}',
        "1: step_ends: expected integers, got 1.0 at index 0",
    ),
    "bool for a length": (
        b'{"group": 1, "length": true}',
        "1: length: expected a whole number, got true",
    ),
    "number for a flag": (
        b'{"group": 1, "length": 1, "format_ok": 1}',
        "1: format_ok: expected true or false, got 1",
    ),
    "number for a text": (
        b'{"group": 1, "length": 1, "text": 7}',
        "1: text: expected a string, got 7",
    ),
    "number for a token": (
        b'{"group": 1, "tokens": ["a", 7]}',
        "1: tokens: expected strings, got 7 at index 1",
    ),
    "signals are a list": (
        b'{"group": 1, "length": 1, "signals": [1]}',
        "1: signals: expected an object, got [1]",
    ),
    "signal is a list": (
        b'{"group": 1, "length": 1, "signals": {"judge": [1]}}',
        "1: signals.judge: expected an object, got [1]",
    ),
    "signal without scores": (
        b'{"group": 1, "length": 1, "signals": {"judge": {"ends": [0]}}}',
        "1: signals.judge: expected either scores or advantages",
    ),
    "signal with both": (
        b'{"group": 1, "length": 1, "signals": {"judge": {"scores": [1], "advantages": [1]}}}',
        "1: signals.judge: expected either scores or advantages",
    ),
    "advantages with ends": (
        b'{"group": 1, "length": 1, "signals": {"judge": {"advantages": [1], "ends": [0]}}}',
        "1: signals.judge.ends: advantages are one a token: expected no ends",
    ),
    "signal too short": (
        b'{"group": 1, "length": 2, "signals": {"judge": {"scores": [1]}}}',
        "1: signals.judge.scores: 1 values, but the response has 2 tokens",
    ),
    "signal's ends": (
        b'{"group": 1, "length": 2, "signals": {"judge": {"scores": [1], "ends": [0]}}}',
        "1: signals.judge.ends: last step ends at 0, but the response's last token is 1",
    ),
    "signal named outcome": (
        b'{"group": 1, "length": 1, "signals": {"outcome": {"scores": [1]}}}',
        "1: signals.outcome: this name is taken: a process stream needs another",
    ),
    "signal named process": (
        b'{"group": 1, "token_scores": [1], "signals": {"process": {"scores": [1]}}}',
        "1: signals.process: this name is taken: a process stream needs another",
    ),
    "a list for a row": (b"[1, 2]", "1: expected an object, got [1, 2]"),
    "a number for a row": (b"17", "1: expected an object, got 17"),
    "truncated": (
        GOOD + b'{"group": 1, "length": 2, "outc',
        "2: is not JSON: Unterminated string starting at at column 27",
    ),
    "not json": (b"{group: 1}", "1: is not JSON: Expecting property name enclosed in double "
                 "quotes at column 2"),
    "nested": (b'{"group": 1, "x": ' + b"[" * 9999 + b"]" * 9999 + b"}", "1: is nested too deeply"),
    "not utf-8": (
        GOOD + b'{"group": "\xff", "length": 2}',
        "2: is not UTF-8: byte 0xff at column 12",
    ),
    "faults are counted": (
        GOOD + b'{"group": 1}\n\n[]\n{"group": 2, "length": true}',
        "2: length: missing, and no other field tells it (and 2 more faults)",
    ),
    "a newline in a name": (
        b'{"group": 1, "length": 1, "signals": {"a\\nb": 1}}',
        "1: signals.a\\nb: expected an object, got 1",
    ),
}  # fmt: skip


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
    "log-probs are missing": (
        ["--method", "opd"],
        "in.jsonl:1: student_logprobs: missing: opd needs it (and 1 more fault)",
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
    assert ended.err == "in.jsonl:2: outcome: missing: grpo needs it (and 1 more fault)\n"
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


def test_a_full_disk_leaves_the_old_output(run_process: Run, tmp_path: Path) -> None:
    """The shell's limit on the size of files stands in for the disk's end."""
    (tmp_path / "in.jsonl").write_bytes(GOOD * 20_000)
    (tmp_path / "out.jsonl").write_text("kept")
    limited = ("bash", "-c", 'ulimit -f 64; exec "$@"', "-")
    ended = run_process("shape", "in.jsonl", "-o", "out.jsonl", prefix=limited)
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
