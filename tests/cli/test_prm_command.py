"""`stepcredit prm`: training and judging from the command line, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.prm.training.labelled import make_body, ruled_rows, write_rows

from stepcredit.cli.prm import TRAIN_FIELDS
from stepcredit.prm.training.train_settings import PRMTrainSettings

SUMS = [
    {"problem": "Sum?", "steps": ["1 + 1 = 2", "2 + 2 = 5", "so 5"], "label": 1},
    {"problem": "And?", "steps": ["3 + 1 = 4", "4 + 4 = 8"], "label": -1},
    {"problem": "Not seen?", "steps": ["twice three is nine", "9"], "label": 0},
]
EVAL = ("prm", "eval", "rows.jsonl", "--signal", "arithmetic")
QUICK = ("--set", "learning_rate=5e-3", "--set", "batch_tokens=1024", "--set", "max_steps=2")


def write_stepwise(path: Path, count: int = 80) -> None:
    """Rows by a rule, in TRL's format."""
    write_rows(
        path,
        (
            {"prompt": row.question, "completions": row.steps, "labels": row.labels}
            for row in ruled_rows(count)
        ),
    )


def test_eval_judges_a_program(run: Run, tmp_path: Path) -> None:
    """Of two with an error one is found, the one without is let through: F1 2/3."""
    write_rows(tmp_path / "rows.jsonl", SUMS)
    ended = run(*EVAL, "--threshold", "0.5", "-o", "judged")
    assert (ended.code, ended.err.splitlines()[-1]) == (0, "scoring test 3/3")
    found = json.loads((tmp_path / "judged/metrics.json").read_text())
    assert found["first_error"]["f1"] == pytest.approx(2 / 3)
    assert found["first_error"]["accuracy_wrong"] == 0.5
    assert found["first_error"]["threshold_from"] == "given"
    assert found["data"] == {"rows": 3, "questions": 3, "steps": 5, "wrong_steps": 2}
    assert re.search(r"first error: F1 +│ 0\.667 ", ended.out)
    assert (tmp_path / "judged/judged.png").read_bytes()[:4] == b"\x89PNG"


def test_eval_tries_its_folder_before_it_scores(run: Run, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", SUMS)
    (tmp_path / "judged").write_text("a file")
    ended = run(*EVAL, "--threshold", "0.5", "-o", "judged")
    assert (ended.code, ended.out, ended.err) == (1, "", "judged: file exists\n")


def test_eval_chooses_the_threshold_on_questions_it_does_not_judge(
    run: Run, tmp_path: Path
) -> None:
    rows = [{**SUMS[number % 3], "problem": f"question {number}"} for number in range(60)]
    write_rows(tmp_path / "rows.jsonl", rows)
    ended = run(*EVAL, "-o", "judged", "--seed", "1")
    assert ended.code == 0
    found = json.loads((tmp_path / "judged/metrics.json").read_text())
    assert found["first_error"]["threshold_from"] == "best F1 on the validation questions"
    scored = dict(re.findall(r"scoring (\w+) \d+/(\d+)", ended.err))
    assert int(scored["validation"]) + int(scored["test"]) == 60
    assert found["data"]["rows"] == int(scored["test"]) < 60


def test_train_then_resume_then_eval(run: Run, tmp_path: Path) -> None:
    """What was stopped before its figures goes on; eval on the same questions says the same."""
    make_body(tmp_path / "body", ruled_rows(80))
    write_stepwise(tmp_path / "rows.jsonl")
    train = ("prm", "train", "rows.jsonl", "--model", "body", "-o", "model", *QUICK)
    ended = run(*train, "--test", "0.3")
    assert ended.code == 0, ended.err
    assert "training 2/2  loss 0." in ended.err
    assert ended.out.startswith("model: judged on ")
    first = json.loads((tmp_path / "model/metrics.json").read_text())
    (tmp_path / "model/metrics.json").unlink()
    assert run("prm", "train", "--resume", "model").code == 0
    assert json.loads((tmp_path / "model/metrics.json").read_text()) == first
    signal = ("--signal", "prm", "--set", "model=model", "--set", "protocol=token-classifier")
    shares = ("--test", "0.3", "--validation", "0.1", "-o", "again")
    assert run("prm", "eval", "rows.jsonl", *signal, *shares).code == 0
    again = json.loads((tmp_path / "again/metrics.json").read_text())
    assert {name: first[name] for name in again} == again


def test_bad_rows_are_refused_or_counted(run: Run, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [*SUMS, {**SUMS[0], "label": 7}])
    reason = "rows.jsonl:4: label: expected -1 or the index of one of 3 steps, got 7\n"
    ended = run(*EVAL, "--threshold", "0.5")
    assert (ended.code, ended.out, ended.err) == (1, "", reason)
    ended = run(*EVAL, "--threshold", "0.5", "--bad-rows", "skip")
    assert ended.code == 0
    assert ended.err.startswith(f"1 bad row skipped, the first: {reason}")


NEEDED = "is required unless --resume is given\n"
REFUSED = {
    "no rows": (
        ("prm", "train", "-o", "x", "--model", "m"),
        "ROWS: is required unless --resume is given",
    ),
    "no model": (
        ("prm", "train", "rows.jsonl", "-o", "x"),
        "--model: is required unless --resume is given",
    ),
    "no output": (
        ("prm", "train", "rows.jsonl", "--model", "m"),
        "-o: is required unless --resume is given",
    ),
    "field": (
        ("prm", "train", "rows.jsonl", "--model", "m", "-o", "x", "--set", "epoch=2"),
        "--set epoch: no such field, did you mean 'epochs'?",
    ),
    "value": (
        ("prm", "train", "rows.jsonl", "--model", "m", "-o", "x", "--set", "epochs=0"),
        "--set epochs: expected a number above 0, got 0",
    ),
    "seed": (
        ("prm", "train", "rows.jsonl", "--model", "m", "-o", "x", "--set", "seed=2"),
        "--set seed: is a separate option: --seed",
    ),
    "negative seed": (
        ("prm", "train", "rows.jsonl", "--model", "m", "-o", "x", "--seed", "-1"),
        "--seed: expected a whole number from 0 to 4294967295, got -1",
    ),
    "large seed": (
        ("prm", "train", "rows.jsonl", "--model", "m", "-o", "x", "--seed", "4294967296"),
        "--seed: expected a whole number from 0 to 4294967295, got 4294967296",
    ),
    "seed of a judgement": (
        (*EVAL, "--seed", "-1"),
        "seed: expected a whole number from 0 to 4294967295, got -1",
    ),
    "shares": (
        ("prm", "train", "rows.jsonl", "--model", "m", "-o", "x", "--test", "0.95"),
        "--test: expected test + validation below 1, got 0.95 + 0.1",
    ),
    "model": (
        ("prm", "train", "rows.jsonl", "--model", "m", "-o", "x"),
        "m: does not load: ",
    ),
    "resume": (("prm", "train", "--resume", "x"), "x: holds no run to resume"),
    "format": (
        (*EVAL, "--format", "x"),
        "--format: expected one of auto, prm800k, math-shepherd, prmbench, processbench, "
        "stepwise, rlhflow, openr, openr-tree, ratings, got 'x'",
    ),
    "neutral": (
        (*EVAL, "--neutral", "x"),
        "--neutral: expected one of right, wrong, ignore, got 'x'",
    ),
    "bad rows": ((*EVAL, "--bad-rows", "x"), "--bad-rows: expected one of refuse, skip, got 'x'"),
    "signal": (
        ("prm", "eval", "rows.jsonl", "--signal", "arithmetics"),
        "--signal arithmetics: unknown signal 'arithmetics', did you mean 'arithmetic'?",
    ),
    "token ids": (
        ("prm", "eval", "none.jsonl", "--signal", "logprobs", "--set", "model=m"),
        "--signal logprobs: logprobs reads the policy's token ids, which labelled rows do not have",
    ),
    "file": (
        ("prm", "eval", "none.jsonl", "--signal", "arithmetic"),
        "none.jsonl: no such file or directory",
    ),
    "too few": (
        (*EVAL, "--validation", "0"),
        "validation: the validation part has no question: expected more rows or a larger share",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_line(name: str, run: Run, tmp_path: Path) -> None:
    arguments, reason = REFUSED[name]
    write_rows(tmp_path / "rows.jsonl", SUMS)
    ended = run(*arguments)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(reason)
    assert ended.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_the_help_names_every_setting() -> None:
    own = {"seed", "test", "validation"}
    assert {*TRAIN_FIELDS.split(", "), *own} == {field.name for field in fields(PRMTrainSettings)}
