"""`stepcredit score` refuses: rows, options and files, each in one line, and nothing is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, write

SUMS = ("--signal", "arithmetic")
ROW: dict[str, Any] = {"group": 1, "id": 1, "prompt": "2+3?", "text": "2 + 3 = 5.\n\nSo 5."}


BAD: dict[str, tuple[dict[str, Any] | str, str]] = {
    "no text": ({"group": 1}, "text: missing: it is what is scored"),
    "text of another type": ({"group": 1, "text": 5}, "text: expected a string, got 5"),
    "no group": ({"text": "a"}, "group: missing"),
    "prompt of another type": (
        {"group": 1, "text": "a", "prompt": 5},
        "prompt: expected a string, got 5",
    ),
    "no object": ("[1]", "expected an object, got [1]"),
    "no JSON": (
        "{",
        "is not JSON: Expecting property name enclosed in double quotes at column 2",
    ),
    "null tokens": (
        {"group": 1, "text": "a", "tokens": None},
        "tokens: expected a list of strings, got null",
    ),
    "other tokens": (
        {"group": 1, "text": "a b c", "tokens": ["a ", "c"]},
        "tokens: make 'a c', but the text is 'a b c'",
    ),
    "other tokens, far on": (
        {"group": 1, "text": "x" * 99 + " yes, so", "tokens": ["x" * 99, " no, so"]},
        "tokens: make '...xxxxxxxxx no, so', but the text is '...xxxxxxxxx yes, so'",
    ),
    "ids alone": (
        {"group": 1, "text": "a", "token_ids": [1]},
        "token_ids: their texts are unknown: name the tokenizer that made them",
    ),
    "bad ids": (
        {"group": 1, "text": "a", "token_ids": ["a"]},
        'token_ids: expected integers, got "a" at index 0',
    ),
    "ends past the end": (
        {"group": 1, "text": "a b", "step_ends": [5, 9]},
        "step_ends: last step ends at 9, but the response's last token is 1",
    ),
    "no ends": (
        {"group": 1, "text": "a b", "step_ends": []},
        "step_ends: expected at least one step",
    ),
    "bad ends": (
        {"group": 1, "text": "a b", "step_ends": "x"},
        'step_ends: expected a list of integers, got "x"',
    ),
    "an empty step": (
        {"group": 1, "tokens": ["a", "", "b"], "step_ends": [0, 1, 2]},
        "step_ends: a step has no text: split the response again",
    ),
    "ends that the text does not tell": (
        {"group": 1, "tokens": ["a", "", "b"], "step_ends": [0, 2]},
        "step_ends: are [0, 2], but by the text [1, 2]: split the response again",
    ),
    "bad signals": (
        {"group": 1, "text": "a b", "signals": None},
        "signals: expected an object, got null",
    ),
    "another length": (
        {"group": 1, "text": "a b c", "length": 2},
        "tokens: 3 values, but the response has 2 tokens",
    ),
    "another mask": (
        {"group": 1, "text": "a b", "loss_mask": [1, 0, 0]},
        "loss_mask: 3 values, but tokens has 2",
    ),
    "half the outcomes": (
        {"group": 0, "text": "a"},
        "outcome: unknown, but known for others of its group",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_named_and_the_output_stays(case: str, run: Run, tmp_path: Path) -> None:
    row, reason = BAD[case]
    good = json.dumps({"group": 0, "text": "1 + 1 = 2", "outcome": 1.0})
    bad = row if isinstance(row, str) else json.dumps(row)
    (tmp_path / "in.jsonl").write_text(f"{good}\n{bad}\n{good}\n")
    (tmp_path / "out.jsonl").write_text("as it was")
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *SUMS)
    assert (ended.code, ended.out, ended.err) == (1, "", f"in.jsonl:2: {reason}\n")
    assert (tmp_path / "out.jsonl").read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_faults_are_counted(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"group": 1}, {"group": 2}, {"text": "a"}])
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *SUMS)
    first = "in.jsonl:1: text: missing: it is what is scored (and 2 more faults)\n"
    assert (ended.code, ended.err) == (1, first)


def test_what_a_signal_lacks_is_told_by_its_line(run: Run, tmp_path: Path) -> None:
    rows = [{"group": g, "text": "Paris", "hops": ["Paris"]} for g in (1, 2, 1)]
    del rows[1]["hops"]
    write(tmp_path / "in.jsonl", rows)
    ended = run("score", "in.jsonl", "-o", "out.jsonl", "--signal", "hops")
    names = "hops, evidences, question_decomposition, supporting_facts"
    assert (ended.code, ended.err) == (1, f"in.jsonl:2: hops: needs one of {names}\n")


SETTINGS: list[tuple[tuple[str, ...], str]] = [
    (("--signal", "aritmetic"), "--signal aritmetic: unknown signal 'aritmetic', did you mean "),
    (("--signal", "prm"), "--set model: prm needs it"),
    (
        ("--signal", "callable"),
        "--set function: expected a function, or MODULE:FUNCTION, got None",
    ),
    (
        (*SUMS, "--set", "neutrl=1"),
        "--set neutrl: arithmetic has no such field, did you mean 'neutral'?",
    ),
    ((*SUMS, "--set", "neutral=x"), "--set neutral: expected a number, got 'x'"),
    ((*SUMS, "--set", "neutral"), "--set neutral: expected FIELD=VALUE"),
    (
        (*SUMS, "--as", "outcome"),
        "--as outcome: this name is taken: a process stream needs another",
    ),
    (
        (*SUMS, "--as", "teacher_logprobs"),
        "--as teacher_logprobs: arithmetic scores steps, log-probs are one per token",
    ),
    (
        (*SUMS, "--split", "blnk"),
        "--split blnk: unknown splitter 'blnk': expected blank-line, newline, newline-tokens, "
        "regex, sentence, tags, turns",
    ),
    (
        (*SUMS, "--split", "regex:patern=;"),
        "--split regex:patern=;: patern: regex has no such field, did you mean 'pattern'?",
    ),
    ((*SUMS, "--chat"), "--chat: needs --tokenizer"),
    (
        (*SUMS, "--map", "affin:scale=2"),
        "--map affin:scale=2: unknown map 'affin', did you mean 'affine'?",
    ),
    ((*SUMS, "--map", "affine:scale"), "--map affine:scale: scale: expected FIELD=VALUE"),
    (
        (*SUMS, "--map", "affine:signal=1"),
        "--map affine:signal=1: signal: affine has no such field",
    ),
    ((*SUMS, "--map", "clip:low=0,low=1"), "--map clip:low=0,low=1: low: is given twice"),
    (
        ("--signal", "monte-carlo", "--set", "reward=math"),
        "--set reward: unknown reward 'math', did you mean 'maths'?",
    ),
    (
        ("--signal", "shared-prefix", "--cache", "c.sqlite"),
        "--cache: the scores of shared-prefix depend on the other responses",
    ),
    ((*SUMS, "--cache", "no/c.sqlite"), "no/c.sqlite: no such file or directory"),
    ((*SUMS, "--cache", "in.jsonl"), "in.jsonl: file is not a database"),
    ((*SUMS, "--import", "nothing"), "--import nothing: No module named 'nothing'"),
]


@pytest.mark.parametrize(("options", "line"), SETTINGS)
def test_a_bad_option_is_named(
    options: tuple[str, ...], line: str, run: Run, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", [ROW])
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *options)
    expected = line + ("'arithmetic'?" if line.endswith("mean ") else "") + "\n"
    assert (ended.code, ended.out, ended.err) == (1, "", expected)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_files_that_cannot_be_opened_are_named(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [ROW])
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/tokenizer.json").write_text("{")
    (tmp_path / "torn/tokenizer_config.json").write_text("{}")
    for arguments, line in (
        (("no.jsonl", "-o", "out.jsonl"), "no.jsonl: no such file or directory"),
        (("in.jsonl", "-o", "no/out.jsonl"), "no/out.jsonl: no such file or directory"),
        (("empty.jsonl", "-o", "out.jsonl"), "empty.jsonl: there are no rollouts in it"),
    ):
        ended = run("score", *arguments, *SUMS)
        assert (ended.code, ended.err) == (1, line + "\n")
    for tokenizer in ("torn", "no"):
        ended = run("score", "in.jsonl", "-o", "out.jsonl", *SUMS, "--tokenizer", tokenizer)
        assert ended.code == 1
        assert ended.err.startswith(f"--tokenizer {tokenizer}: ")
        assert ended.err.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_no_journal_beside_a_device(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text("def now(response): return 1 / 0")
    write(tmp_path / "in.jsonl", [ROW])
    before = set(os.listdir("/dev"))
    assert run("score", "in.jsonl", "-o", "/dev/null", *SUMS).code == 0
    failing = ("--signal", "callable", "--set", "function=fails:now")
    ended = run("score", "in.jsonl", "-o", "/dev/null", *failing)
    line = "in.jsonl:1: function: ZeroDivisionError: division by zero\n"
    assert (ended.code, ended.err) == (1, line)
    assert set(os.listdir("/dev")) == before
