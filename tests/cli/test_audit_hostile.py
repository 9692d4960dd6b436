"""Hostile files through `audit`, its page, and `attack`: shown as text, or refused in one line."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.bad_rows import ROWS
from tests.cli.conftest import Ended, Run, environment, write
from tests.data.test_files_memory import CHILD

pytest.importorskip("scipy")

ATTACK = ("--signal", "arithmetic", "--edits", "double-check")
EVIL = "\x1b[31m\x1b]0;x\x07\u202e\u2066\x9b2J[bold]</script><img src=x onerror=alert(1)>"
UNSAFE = {"\x1b", "\x07", "\u202e", "\u2066", "\x9b", "\u2028", "\x00"}


def response(group: Any, at: int, **more: Any) -> dict[str, Any]:
    """A response of two paragraphs; every second one is right."""
    tokens = ["1 + 1 ", "= ", f"{2 + at % 2}\n\n", f"It is {at}."]
    row = {"group": group, "tokens": tokens, "text": "".join(tokens), "outcome": 1.0 - at % 2}
    return row | {"step_ends": [2, 3], "step_scores": [0.1 * at, 0.5]} | more


def responses(groups: int = 2, **more: Any) -> list[dict[str, Any]]:
    """Groups of four."""
    return [response(group, at, **more) for group in range(1, groups + 1) for at in range(4)]


def both(run: Run, path: str) -> list[Ended]:
    return [run("audit", path), run("attack", path, *ATTACK)]


GOOD = json.dumps(responses()[0]).encode() + b"\n"
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "nothing": ("in.jsonl", b"", "in.jsonl: holds no response"),
    "spaces": ("in.jsonl", b" \n\r\n\t\n", "in.jsonl: holds no response"),
    "an empty gzip file": ("in.jsonl.gz", gzip.compress(b""), "in.jsonl.gz: holds no response"),
    "10 MB of one line": (
        "in.jsonl",
        b"a" * 10_000_000,
        "in.jsonl:1: is not JSON: Expecting value at column 1",
    ),
    "10 MB of an open string": (
        "in.jsonl",
        GOOD + b'{"group": "' + b"a" * 10_000_000,
        "in.jsonl:2: is not JSON: Unterminated string starting at at column 11",
    ),
    "100,000 brackets": (
        "in.jsonl",
        GOOD + b'{"group": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "in.jsonl:2: is nested too deeply: more than 100 levels",
    ),
    "100,000 brackets in the first line": (
        "in.jsonl",
        b"[" * 100_000,
        "in.jsonl:1: is nested too deeply: more than 100 levels",
    ),
    "100,000 objects": (
        "in.jsonl",
        GOOD + b'{"a":' * 100_000,
        "in.jsonl:2: is nested too deeply: more than 100 levels",
    ),
    "bytes that are not UTF-8": (
        "in.jsonl",
        GOOD + b'{"group": "\xff\xfe", "length": 1}',
        "in.jsonl:2: is not UTF-8: byte 0xff at column 12",
    ),
    "a binary file": ("in.jsonl", bytes(range(256)) * 40, "in.jsonl:1: holds a NUL byte at column"),
    "a file that is no gzip": ("in.jsonl.gz", GOOD, "in.jsonl.gz: is not a whole gzip file"),
    "half a gzip file": (
        "in.jsonl.gz",
        gzip.compress(GOOD * 2000)[:60],
        "in.jsonl.gz: is not a whole gzip file",
    ),
    "a file that is no Parquet": ("in.parquet", GOOD, "in.parquet: "),
    "1e308 in a score": (
        "in.jsonl",
        GOOD + GOOD.replace(b"[0.0, 0.5]", b"[1e308, 0.5]"),
        "in.jsonl:2: step_scores: 1e+308 at index 0 is too large for float32",
    ),
    "an integer of 4,000 digits in a score": (
        "in.jsonl",
        GOOD + GOOD.replace(b"[0.0, 0.5]", b"[" + b"9" * 4000 + b", 0.5]"),
        "in.jsonl:2: step_scores: ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_file_is_refused_in_one_line(case: str, run: Run, tmp_path: Path) -> None:
    if case == "a file that is no Parquet":
        pytest.importorskip("pyarrow")
    name, content, line = REFUSED[case]
    (tmp_path / name).write_bytes(content)
    for ended in both(run, name):
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith(line)
        assert ended.err.count("\n") == 1
        assert len(ended.err) < 500
        assert not UNSAFE & set(ended.err)


ALONE = {
    name: case
    for name, case in ROWS.items()
    if "half-known" not in name
    and "faults are counted" not in name
    and "of its group" not in case[1]
}
"""Bad rows that break a rule by themselves; those of a group are what the audit reports."""


@pytest.mark.parametrize("case", ALONE)
def test_a_bad_row_is_refused_with_its_place(case: str, run: Run, tmp_path: Path) -> None:
    content, expected = ALONE[case]
    (tmp_path / "bad.jsonl").write_bytes(content)
    ended = run("audit", "bad.jsonl", "-o", "page.html", "--json", "report.json")
    assert (ended.code, ended.out, ended.err) == (1, "", f"bad.jsonl:{expected}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_outcomes_known_for_a_part_of_a_group_are_a_finding(run: Run, tmp_path: Path) -> None:
    rows = responses()
    rows[3]["outcome"] = None
    write(tmp_path / "in.jsonl", rows)
    ended = run("audit", "in.jsonl", "--fail-on", "fault")
    assert ended.code == 3
    assert "1 group know the outcome of some responses only" in " ".join(ended.out.split())


def test_a_folder_without_logs_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for ended in both(run, "empty"):
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith("empty: no ")
        assert ended.err.count("\n") == 1
    (tmp_path / "in.jsonl").mkdir()
    assert run("audit", "in.jsonl").err.startswith("in.jsonl: no ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_read_once(run: Run, tmp_path: Path) -> None:
    """Reading it a second time would wait for ever."""
    for command, options in (("audit", ()), ("attack", ATTACK)):
        pipe = tmp_path / f"{command}.jsonl"
        os.mkfifo(pipe)
        writer = threading.Thread(target=write, args=(pipe, responses()), daemon=True)
        writer.start()
        ended = run(command, pipe.name, *options)
        writer.join(10)
        assert ended.code == 0
        assert not writer.is_alive()
        assert "2 groups" in ended.out
    broken = tmp_path / "broken.jsonl"
    os.mkfifo(broken)
    threading.Thread(target=lambda: broken.write_text("{"), daemon=True).start()
    assert run("audit", "broken.jsonl").err.startswith("broken.jsonl:1: is not JSON")


def test_standard_input_is_read(run: Run) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in responses()).encode()
    assert "8 responses in 2 groups" in run("audit", "-", stdin=rows).out
    assert run("audit", "-", stdin=b"").err == "-: holds no response\n"


def test_a_long_line_is_read_and_its_page_is_small(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    rows = responses()
    rows[0] |= {"tokens": ["a" * 10_000_000, *rows[0]["tokens"][1:]], "prompt": "b" * 1_000_000}
    del rows[0]["text"]
    write(tmp_path / "in.jsonl", rows)
    ended = run("audit", "in.jsonl", "-o", "page.html", "--json", "report.json")
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "page.html").stat().st_size < 1_000_000
    assert (tmp_path / "report.json").stat().st_size < 1_000_000
    assert max(map(len, ended.out.splitlines())) <= 100


def test_control_and_direction_characters_are_shown_as_text(run: Run, tmp_path: Path) -> None:
    """In ids, groups, names of streams, labels of steps, prompts, texts and other fields."""
    pytest.importorskip("jinja2")
    rows = responses(8, prompt=EVIL, id=EVIL, kinds=[EVIL, "right"])
    for row in rows:
        row["group"] = f"{EVIL}{row['group']}"
        row["tokens"] = [EVIL, *row["tokens"][1:]]
        row["text"] = "".join(row["tokens"])
        row["signals"] = {EVIL: {"scores": [0.5, 0.5], "ends": [2, 3]}}
    write(tmp_path / "in.jsonl", rows)
    ended = run("audit", "in.jsonl", "-o", "page.html", "--json", "-")
    page = (tmp_path / "page.html").read_text()
    report = json.loads(ended.out)
    assert any(EVIL in finding["sentence"] for finding in report["findings"])
    ended = run("audit", "in.jsonl")
    assert "\\x1b[31m\\x1b]0;x\\x07\\u202e" in "".join(ended.out.split())
    for text in (ended.out, ended.err, page):
        assert not UNSAFE & set(text)
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 2
    attacked = run("attack", "in.jsonl", *ATTACK)
    assert attacked.code == 0
    assert not UNSAFE & set(attacked.out + attacked.err)


@pytest.mark.parametrize("command", ["audit", "attack"])
def test_names_given_on_the_command_line_are_shown_as_text(
    command: str, run: Run, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", responses())
    options = ATTACK if command == "attack" else ()
    for arguments in (
        ("in.jsonl", *options, "--method", EVIL),
        (
            "in.jsonl",
            *options,
            "--method",
            f"pass:{EVIL}=1" if options else "pass",
            "--set",
            f"{EVIL}=1",
        ),
        (f"{EVIL.replace('/', '')}.jsonl", *options),
    ):
        ended = run(command, *arguments)
        assert (ended.code, ended.out) == (1, "")
        assert ended.err.count("\n") == 1
        assert not UNSAFE & set(ended.err)


def test_a_file_name_is_shown_as_text(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    name = EVIL.replace("/", "") + ".jsonl"
    write(tmp_path / name, responses())
    ended = run("audit", name, "-o", "page.html")
    assert ended.code == 0
    assert not UNSAFE & set(ended.out + ended.err + (tmp_path / "page.html").read_text())


@pytest.mark.parametrize("scale", [1e38, 1e-38, 1e-300])
def test_scores_of_an_extreme_size_give_finite_figures(
    scale: float, run: Run, tmp_path: Path
) -> None:
    pytest.importorskip("jinja2")
    rows = responses()
    for row in rows:
        row["step_scores"] = [scale * score for score in row["step_scores"]]
    write(tmp_path / "in.jsonl", rows)
    ended = run("audit", "in.jsonl", "-o", "page.html", "--json", "report.json")
    assert (ended.code, ended.err) == (0, "")
    json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert "nan" not in ended.out.split()
    data = (tmp_path / "page.html").read_text().split('id="data"')[1].split("<")[0]
    assert "NaN" not in data
    assert "Infinity" not in data


SMALL: dict[str, tuple[list[dict[str, Any]], str]] = {
    "one group": (responses()[:4], "4 responses in 1 group, 16 trained tokens"),
    "one response": (responses()[:1], "1 response in 1 group, 4 trained tokens"),
    "one token": (
        [{"group": 1, "tokens": ["4"], "step_ends": [0], "step_scores": [0.5], "outcome": 1.0}],
        "1 response in 1 group, 1 trained token",
    ),
    "one token, nothing known": (
        [{"group": 1, "tokens": ["4"]}],
        "1 response in 1 group, 1 trained token",
    ),
    "empty texts": (
        [{"group": 1, "length": 1, "text": "", "outcome": float(i)} for i in range(2)],
        "2 responses in 1 group, 2 trained tokens",
    ),
}


@pytest.mark.parametrize("case", SMALL)
def test_very_small_files_have_a_report(case: str, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    rows, counts = SMALL[case]
    write(tmp_path / "in.jsonl", rows)
    ended = run("audit", "in.jsonl", "-o", "page.html", "--json", "report.json")
    assert (ended.code, ended.err) == (0, "")
    assert counts in " ".join(ended.out.split())
    levels = [
        each["severity"] for each in json.loads((tmp_path / "report.json").read_text())["findings"]
    ]
    assert "fault" not in levels


def test_without_a_process_signal_the_other_checks_run_and_it_says_so(
    run: Run, tmp_path: Path
) -> None:
    rows = responses()
    for row in rows:
        del row["step_scores"]
    write(tmp_path / "in.jsonl", rows)
    ended = run("audit", "in.jsonl", "--json", "report.json")
    assert (ended.code, ended.err) == (0, "")
    report = json.loads((tmp_path / "report.json").read_text())
    lacking = {item["check"] for item in report["unchecked"] if item["field"] == "step_scores"}
    assert lacking == {
        "contamination",
        "length",
        "resolution",
        "shifted scores",
        "signal_quality",
        "values of the signal",
    }
    assert "no process signal" in " ".join(ended.out.split())
    assert report["checks"]["outcomes"]["figures"]
    assert report["checks"]["groups without variance"]["figures"]


LIMIT_MB = 1200
"""Of heap and private maps; `import stepcredit.cli` and torch take about 250 MB of it."""


HEAD = b'{"schema": "stepcredit.attack/1", "responses": ["k"], "signal": "s", "methods": [], '
ATTACKS: dict[str, bytes] = {
    "nothing": b"",
    "binary": bytes(range(256)) * 40,
    "deep": b"[" * 100_000,
    "deep in the report": HEAD + b'"edits": ' + b"[" * 100_000,
    "a list": b"[]",
    "another schema": b'{"schema": "x"}',
    "no edits": HEAD + b'"edits": null}',
    "an edit of numbers": HEAD + b'"edits": [1, 2]}',
    "a huge number": HEAD + b'"edits": [{"edit": "a", "applied": 1e400}]}',
    "controls": HEAD + b'"edits": [{"edit": "\\u001b[2J\\u202e"}]}',
}


@pytest.mark.parametrize("case", ATTACKS)
def test_a_hostile_attack_report_is_refused_in_one_line(
    case: str, run: Run, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", responses())
    (tmp_path / "attack.json").write_bytes(ATTACKS[case])
    ended = run("audit", "in.jsonl", "--attack", "attack.json")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("attack.json: is not ")
    assert ended.err.count("\n") == 1
    assert not UNSAFE & set(ended.err)


def packed(rows: Callable[[], bytes], times: int) -> Callable[[Path], None]:
    """Writes a gzip file of the same bytes again and again."""

    def make(path: Path) -> None:
        with gzip.open(path, "wb", compresslevel=6) as out:
            block = rows()
            for _ in range(times):
                out.write(block)

    return make


def tiny_groups() -> bytes:
    return b"".join(b'{"group":%d,"length":1,"text":"a"}\n' % i for i in range(20_000))


def verl_lines() -> bytes:
    return b'{"input": "2+3?", "output": "5", "score": 1.0, "step": 1}\n' * 20_000


def labelled_lines() -> bytes:
    return b'{"prompt": "1+1?", "completions": ["2"], "labels": [true]}\n' * 20_000


def bare_lengths(path: Path) -> None:
    """No group passes its limit; all together do."""
    path.write_text("".join(f'{{"group":{i},"length":30000000}}\n' for i in range(40)))


def many_signals(path: Path) -> None:
    """A hundred streams in each group, and other ones in the next."""
    with path.open("w") as out:
        for group in range(20):
            signals = {f"s{group}-{i}": {"scores": [0.5]} for i in range(100)}
            out.write(json.dumps({"group": group, "length": 1, "signals": signals}) + "\n")


def one_long_among_many(path: Path) -> None:
    """A table of a hundred billion cells."""
    path.write_text('{"group":1,"length":30000000}\n' + '{"group":1,"length":1}\n' * 4000)


BOMBS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "zeros": ("a.jsonl.gz", packed(lambda: bytes(1 << 20), 65), "LINE_BYTES"),
    "groups": ("a.jsonl.gz", packed(tiny_groups, 2), "HELD_BYTES"),
    "a verl log": ("a.jsonl.gz", packed(verl_lines, 10), "HELD_BYTES"),
    "labelled rows": ("a.jsonl.gz", packed(labelled_lines, 10), "HELD_BYTES"),
    "bare lengths": ("a.jsonl", bare_lengths, "HELD_TOKENS"),
    "signals": ("a.jsonl", many_signals, "SIGNALS"),
    "a table": ("a.jsonl", one_long_among_many, "GROUP_TOKENS"),
}


WITH_TEXT = ("zeros", "groups", "a verl log")
"""Bombs whose rows `attack` would read, too."""
CASES = [*(("audit", bomb) for bomb in BOMBS), *(("attack", bomb) for bomb in WITH_TEXT)]


@pytest.mark.parametrize(("command", "bomb"), CASES)
def test_a_bomb_is_refused_before_it_is_unpacked(
    command: str, bomb: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, make, limit = BOMBS[bomb]
    make(tmp_path / name)
    monkeypatch.setenv("STEPCREDIT_MAX_HELD_BYTES", str(10 << 20))
    ended = run(command, name, *(ATTACK if command == "attack" else ()))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"{name}:")
    assert ended.err.endswith(f": set STEPCREDIT_MAX_{limit} to allow more\n")
    assert ended.err.count("\n") == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_a_bomb_of_many_groups_is_refused_within_little_memory(tmp_path: Path) -> None:
    """No group passes a limit; all together take more than a process may here."""
    packed(tiny_groups, 40)(tmp_path / "a.jsonl.gz")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(LIMIT_MB), "audit", "a.jsonl.gz"],
        env=environment() | {"STEPCREDIT_MAX_HELD_BYTES": str(100 << 20)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("a.jsonl.gz:")
    assert done.stderr.endswith(": set STEPCREDIT_MAX_HELD_BYTES to allow more\n")
    assert done.stderr.count("\n") == 1
    assert int(done.stdout) < LIMIT_MB
