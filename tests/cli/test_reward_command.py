"""`stepcredit reward`: what it writes, what it refuses, and what a kill leaves behind."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.cli.conftest import Ended, Run, environment, read, write
from typer.testing import CliRunner

import stepcredit as sc
from stepcredit.cli.output import errors_to_stderr
from stepcredit.cli.reward import reward_command
from stepcredit.rewards.base import Facts, Reward
from stepcredit.rewards.reward_registry import register_reward

STOP = "where the first run is stopped"
PROGRAM = """
import typer
from stepcredit.cli.reward import reward_command
import stepcredit as sc
from stepcredit.cli.output import errors_to_stderr
app = typer.Typer()
app.command("reward")(errors_to_stderr(reward_command))
app()
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command("reward")(errors_to_stderr(reward_command))

    def run_here(*arguments: str, stdin: bytes = b"") -> Ended:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run_here


def row(group: str, text: str, answer: Any, **more: Any) -> dict[str, Any]:
    return {"group": group, "length": 2, "text": text, "answer": answer} | more


ROWS = [
    row("a", r"<think>x</think> \boxed{0.5}", "1/2", note="kept"),
    row("b", r"\boxed{7}", 7, outcome=0.25),
    row("a", r"\boxed{0.4}", "1/2"),
    row("b", "7", 7, outcome=0.75),
]


def test_outcomes_and_formats_in_one_call(run: Run, tmp_path: Path) -> None:
    name = write(tmp_path / "in.jsonl", ROWS)
    ended = run(
        name, "-o", "out.jsonl", "--reward", "maths", "--reward", "format",
        "--set", "template=think-boxed", "--set", "maths.limit=30",
    )  # fmt: skip
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == "maths: no answer: 1 of 4 rows\n"
    found = read(tmp_path / "out.jsonl")
    assert [each["outcome"] for each in found] == [1.0, 1.0, 0.0, 0.0]
    assert [each["format"] for each in found] == [1.0, 0.0, 0.0, 0.0]
    assert [each["format_ok"] for each in found] == [True, False, False, False]
    written = {"outcome", "format", "format_ok"}
    kept = [{k: v for k, v in each.items() if k not in written} for each in found]
    assert kept == [{k: v for k, v in each.items() if k != "outcome"} for each in ROWS]


def test_every_other_byte_is_kept(run: Run, tmp_path: Path) -> None:
    raw = b'{ "group":1, "length": 2,"outcome" : 3,"text":"7",  "answer":"7", "id": 1e400 }\n'
    (tmp_path / "in.jsonl").write_bytes(raw)
    assert run("in.jsonl", "-o", "out.jsonl", "--reward", "exact").code == 0
    expected = b'{ "group":1, "length": 2,"text":"7",  "answer":"7", "id": 1e400,"outcome":1.0}\n'
    assert (tmp_path / "out.jsonl").read_bytes() == expected


def test_output_may_be_the_input(run: Run, tmp_path: Path) -> None:
    name = write(tmp_path / "in.jsonl", ROWS)
    for _ in range(2):
        assert run(name, "-o", name, "--reward", "maths").code == 0
        assert [each["outcome"] for each in read(tmp_path / name)] == [1.0, 1.0, 0.0, 0.0]


def test_standard_input_and_output(run: Run) -> None:
    lines = "".join(json.dumps(each) + "\n" for each in ROWS).encode()
    ended = run("-", "-o", "-", "--reward", "maths", stdin=lines)
    assert [json.loads(line)["outcome"] for line in ended.out.splitlines()] == [1.0, 1.0, 0.0, 0.0]


def test_gzip_and_parquet(run: Run, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{**each, "answer": str(each["answer"])} for each in ROWS]
    write(tmp_path / "in.jsonl", rows)
    assert run("in.jsonl", "-o", "a.jsonl.gz", "--reward", "maths").code == 0
    assert run("a.jsonl.gz", "-o", "b.parquet", "--reward", "format").code == 0
    table = parquet.read_table(tmp_path / "b.parquet")
    parquet.write_table(table.set_column(1, "length", table["length"].cast(arrow.int16())),
                        tmp_path / "c.parquet")  # fmt: skip
    arguments = ("c.parquet", "-o", "d.parquet", "--reward", "format", "--reward", "exact")
    assert run(*arguments, "--set", "exact.read=boxed", "--set", "template=think-boxed").code == 0
    table = parquet.read_table(tmp_path / "d.parquet")
    assert table.schema.field("length").type == arrow.int16()
    assert table.schema.field("format_ok").type == arrow.bool_()
    assert table["outcome"].to_pylist() == [0.0, 1.0, 0.0, 0.0]
    assert table["format"].to_pylist() == [1.0, 0.0, 0.0, 0.0]
    assert table["text"].to_pylist() == [each["text"] for each in ROWS]
    with gzip.open(tmp_path / "a.jsonl.gz", "rt") as lines:
        assert [json.loads(line)["outcome"] for line in lines] == [1.0, 1.0, 0.0, 0.0]


def test_the_gold_answer_and_the_text_may_have_other_names(run: Run, tmp_path: Path) -> None:
    rows = [{"group": 1, "length": 1, "response": "<answer>b</answer>", "gold": ["a", "b"]}]
    name = write(tmp_path / "in.jsonl", rows)
    ended = run(name, "-o", "-", "--reward", "qa-em", "--answer", "gold", "--text", "response")
    assert json.loads(ended.out)["outcome"] == 1.0


def test_a_timed_out_answer_is_told(run: Run, tmp_path: Path) -> None:
    hanging = row("a", r"\boxed{\binom{10^9}{5 \cdot 10^8}}", "1/2")
    name = write(tmp_path / "in.jsonl", [ROWS[0], hanging])
    ended = run(name, "-o", "out.jsonl", "--reward", "maths", "--set", "limit=1")
    assert (ended.code, ended.err) == (0, "maths: timed out: 1 of 2 rows\n")
    assert [each["outcome"] for each in read(tmp_path / "out.jsonl")] == [1.0, 0.0]


REFUSED = {
    "unknown reward": (["--reward", "math"],
                       "--reward math: unknown reward 'math', did you mean 'maths'?"),
    "unknown field": (["--reward", "maths", "--set", "limits=1"],
                      "--set limits: maths has no such field"),
    "a field of another": (["--reward", "maths", "--set", "format.template=boxed"],
                           "--set format.template: maths has no such field"),
    "out of range": (["--reward", "maths", "--set", "limit=-1"],
                     "--set limit: expected a number above 0, got -1"),
    "two outcomes": (["--reward", "maths", "--reward", "exact"],
                     "--reward: maths and exact both give the outcome"),
    "no value": (["--reward", "maths", "--set", "limit"], "--set limit: expected FIELD=VALUE"),
    "an answer for a format": (["--reward", "format", "--answer", "gold"],
                               "--set answer: format has no such field"),
    "no module": (["--reward", "maths", "--import", "no_such_module"],
                  "--import no_such_module: No module named 'no_such_module'"),
    "no answers": (["--reward", "maths", "--answer", "gold"],
                   "in.jsonl:1: gold: missing: the reward needs it (and 3 more faults)"),
    "no texts": (["--reward", "maths", "--text", "response"],
                 "in.jsonl:1: response: missing: rewards read it (and 1 more group)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_told_in_a_line(case: str, run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", ROWS)
    (tmp_path / "out.jsonl").write_text("kept")
    arguments, expected = REFUSED[case]
    ended = run("in.jsonl", "-o", "out.jsonl", *arguments)
    assert (ended.code, ended.out, ended.err) == (1, "", expected + "\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "kept"


def test_texts_without_tokens_are_graded(run: Run, tmp_path: Path) -> None:
    raw = b'{"group": 1, "prompt": "3+4?", "text": "\\\\boxed{7}", "answer": "7"}\n'
    (tmp_path / "in.jsonl").write_bytes(raw)
    ended = run("in.jsonl", "-o", "out.jsonl", "--reward", "maths")
    assert (ended.code, ended.err) == (0, "")
    assert (tmp_path / "out.jsonl").read_bytes() == raw[:-2] + b',"outcome":1.0}\n'
    assert sc.RolloutFile(tmp_path / "out.jsonl", needs_tokens=False).fold(int, _count) == 1


def _count(rows: int, batch: Any) -> int:
    return rows + len(batch.rows)


PREFILLED = [
    row("a", "let me see</think> \\boxed{7}", 7),
    row("a", "let me see</think> \\boxed{8}", 7),
]


def test_a_format_that_no_response_has_is_warned_of(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", PREFILLED)
    options = ("--reward", "maths", "--reward", "format", "--set")
    ended = run("in.jsonl", "-o", "out.jsonl", *options, "template=think-boxed")
    start = "warning: in.jsonl: format_ok is false for all 2 responses, so that no score and "
    end = "The template prefilled-think-boxed fits 2 of the responses; it is for prompts that end "
    end += "with `<think>`\n"
    assert ended.code == 0
    assert ended.err.startswith(start)
    assert ended.err.endswith(end)
    ended = run("in.jsonl", "-o", "out.jsonl", *options, "template=prefilled-think-boxed")
    assert (ended.code, ended.err) == (0, "")
    assert [(each["outcome"], each["format"]) for each in read(tmp_path / "out.jsonl")] == [
        (1.0, 1.0),
        (0.0, 1.0),
    ]
    write(tmp_path / "in.jsonl", [*PREFILLED, row("a", "<think>a</think> \\boxed{7}", 7)])
    ended = run("in.jsonl", "-o", "out.jsonl", *options, "template=think-boxed")
    assert (ended.code, ended.err) == (0, "")


OPTIONS = (
    "1 of 3 gold answers are like this: --check-golds prints them, "
    "--set unreadable=unknown leaves their outcomes unknown"
)
BAD_ROWS = {
    "no maths": (row("c", r"\boxed{1}", "t(0,4]"),
                 "3: answer: can't be read as maths: 't(0,4]'; " + OPTIONS),
    "no text": ({"group": "c", "length": 2, "answer": 1}, "3: text: missing: rewards read it"),
    "text is a number": (row("c", 7, 7), "3: text: expected a string, got 7"),
    "no gold answer": (row("c", "7", None), "3: answer: missing: the reward needs it; " + OPTIONS),
    "not finite": (row("c", "7", 7, outcome=float("nan")),
                   "3: outcome: NaN is not a finite number"),
    "half a group": (row("a", "7", 7, outcome=1),
                     "1: outcome: unknown, but known for others of its group"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_told_by_line(case: str, run: Run, tmp_path: Path) -> None:
    bad, expected = BAD_ROWS[case]
    write(tmp_path / "in.jsonl", [ROWS[0], ROWS[2], bad])
    ended = run("in.jsonl", "-o", "out.jsonl", "--reward", "maths")
    assert (ended.code, ended.out, ended.err) == (1, "", f"in.jsonl:{expected}\n")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_kill_leaves_the_output_untouched(tmp_path: Path) -> None:
    hanging = row("a", r"\boxed{\binom{10^9}{5 \cdot 10^8}}", "1/2")
    write(tmp_path / "in.jsonl", [ROWS[0], hanging])
    (tmp_path / "out.jsonl").write_text("kept")
    command = [sys.executable, "-c", PROGRAM, "in.jsonl", "-o", "out.jsonl", "--reward", "maths"]
    process = subprocess.Popen(
        [*command, "--set", "limit=60"], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
    )
    time.sleep(3.0)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    names = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert sorted(names) == ["in.jsonl", "out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "kept"


def test_a_stopped_run_goes_on_where_it_was(run: Run, tmp_path: Path) -> None:
    asked: list[str] = []

    @register_reward("stopping")
    @dataclass(frozen=True)
    class Stopping(Reward):
        """Even lengths are right; it is stopped at a text of its own."""

        def rewards(self, texts: Sequence[str], facts: Sequence[Facts]) -> list[float]:
            if STOP in texts and not (tmp_path / "go").exists():
                raise KeyboardInterrupt
            asked.extend(texts)
            return [float(len(text) % 2 == 0) for text in texts]

    rows = [{"group": i, "length": 1, "text": "a" * (i % 7) + str(i)} for i in range(4000)]
    rows[3000]["text"] = STOP
    write(tmp_path / "in.jsonl", rows)
    arguments = ("in.jsonl", "-o", "out.jsonl", "--reward", "stopping", "--reward", "format")
    ended = run(*arguments)
    journal = ".out.jsonl.graded.sqlite"
    told = f"what was graded is kept in {journal}: run the same command to continue\n"
    assert (ended.code, ended.err) == (130, told)
    first = len(asked)
    assert 0 < first < 4000
    (tmp_path / "go").touch()
    ended = run(*arguments)
    kept, warning = ended.err.splitlines()
    assert kept == f"stopping: kept by an earlier run: {first} of 4000 rows"
    assert warning.startswith("warning: in.jsonl: format_ok is false for all 4,000 responses, ")
    assert len(asked) == 4000
    assert [each["outcome"] for each in read(tmp_path / "out.jsonl")] == [
        float(len(row["text"]) % 2 == 0) for row in rows
    ]
    assert {each["format_ok"] for each in read(tmp_path / "out.jsonl")} == {False}
    assert not (tmp_path / journal).exists()


GOLDS = [
    row("a", r"\boxed{4}", "4"),
    row("b", r"\boxed{4}", "t(0,4]"),
    row("b", r"\boxed{t(0,4]}", "t(0,4]"),
    row("c", "Answer: 7", None),
]


def test_gold_answers_that_cannot_be_read_are_printed(run: Run, tmp_path: Path) -> None:
    name = write(tmp_path / "in.jsonl", GOLDS)
    ended = run(name, "--reward", "maths", "--check-golds")
    assert (ended.code, ended.out, ended.err.splitlines()) == (1, "", [
        "in.jsonl:2: answer: can't be read as maths: 't(0,4]'",
        "in.jsonl:4: answer: missing: the reward needs it",
        "gold answers that can't be read: 3 of 4 rows",
    ])  # fmt: skip
    good = write(tmp_path / "good.jsonl", GOLDS[:1])
    ended = run(good, "--reward", "maths", "--check-golds")
    assert (ended.code, ended.err) == (0, "gold answers that can't be read: 0 of 1 rows\n")
    assert run(good, "--reward", "maths").err == "-o: needed, unless --check-golds is given\n"


def test_outcomes_of_unreadable_gold_answers_are_left_unknown(run: Run, tmp_path: Path) -> None:
    name = write(tmp_path / "in.jsonl", GOLDS)
    refused = run(name, "-o", "out.jsonl", "--reward", "maths")
    assert refused.code == 1
    assert refused.err.startswith("in.jsonl:2: answer: can't be read as maths: 't(0,4]'; 3 of 4 ")
    assert not (tmp_path / "out.jsonl").exists()
    ended = run(name, "-o", "out.jsonl", "--reward", "maths", "--set", "unreadable=unknown")
    assert ended.code == 0
    assert ended.err == "maths: gold answer unreadable, outcome unknown: 3 of 4 rows\n"
    assert [each["outcome"] for each in read(tmp_path / "out.jsonl")] == [1.0, None, None, None]
