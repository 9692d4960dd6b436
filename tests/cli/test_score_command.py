"""`stepcredit score`: what it writes, from what, and how it ends, goes on and refuses."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, environment, read, write
from tests.signals.policies import byte_level
from tokenizers.processors import TemplateProcessing

import stepcredit as sc
from stepcredit.cli import progress

TEXT = "2 + 3 = 5.\n\nThen 5 * 2 = 11.\n\nSo 11."
PIECES = [
    "2 ",
    "+ ",
    "3 ",
    "= ",
    "5.\n\n",
    "Then ",
    "5 ",
    "* ",
    "2 ",
    "= ",
    "11.\n\n",
    "So ",
    "11.",
]
ROW: dict[str, Any] = {"group": 1, "prompt": "2+3?", "text": TEXT, "outcome": 0.0, "id": 1e400}
ENDS, SCORES = [4, 10, 12], [1.0, 0.0, 0.5]
SUMS = ("--signal", "arithmetic")


def many(count: int) -> list[dict[str, Any]]:
    return [
        {"group": i % 7, "text": f"{i} + 1 = {i + i % 3}.\n\nSo {i}.", "outcome": float(i % 2)}
        for i in range(count)
    ]


def test_a_text_gets_words_as_tokens_and_scores_at_its_steps(run: Run, tmp_path: Path) -> None:
    line = json.dumps(ROW).replace("Infinity", "1e400")
    (tmp_path / "in.jsonl").write_text(line + "\n\n")
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *SUMS)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    out = (tmp_path / "out.jsonl").read_text()
    assert out.startswith(line[:-1] + ',"tokens":')
    (row,) = read(tmp_path / "out.jsonl")
    assert row == ROW | {"tokens": PIECES, "step_ends": ENDS, "step_scores": SCORES}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_tokens_and_ends_of_the_row_are_kept(run: Run, tmp_path: Path) -> None:
    tokens = ["2 +", " 3 = 5", ".\n\nThen", " 5 * 2 = 11.", "\n\n", "So 11.", "<|end|>"]
    given = {"group": 1, "tokens": tokens, "loss_mask": [1, 1, 0, 1, 1, 1, 1]}
    write(tmp_path / "in.jsonl", [given | {"step_ends": [1, 4, 6]}])
    assert run("score", "in.jsonl", "-o", "out.jsonl", *SUMS).err == ""
    (row,) = read(tmp_path / "out.jsonl")
    assert row == given | {"step_ends": [1, 4, 6], "step_scores": [1.0, 0.0, 0.5]}
    write(tmp_path / "in.jsonl", [given])
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *SUMS)
    line = "in.jsonl:1: steps: step 0 ends inside token 2 ('.\\n\\nThen')\n"
    assert (ended.code, ended.err) == (1, line)
    split = ("--split", "blank-line:inside=extend")
    assert run("score", "in.jsonl", "-o", "out.jsonl", *SUMS, *split).code == 0
    assert read(tmp_path / "out.jsonl")[0]["step_ends"] == [2, 4, 6]


def test_a_tokenizer_makes_or_reads_the_ids(run: Run, tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.save_pretrained(tmp_path / "policy")
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    other = [id for part in PIECES for id in tokenizer(part, add_special_tokens=False).input_ids]
    assert other != ids
    rows = [ROW | {"id": 1}, {"group": 2, "token_ids": [*other, end]}]
    rows.append({"group": 2, "text": TEXT, "token_ids": [*other, end]})
    write(tmp_path / "in.jsonl", rows)
    options = (*SUMS, "--tokenizer", "policy", "--split", "blank-line:inside=extend")
    assert run("score", "in.jsonl", "-o", "out.jsonl", *options).err == ""
    made, written, both = read(tmp_path / "out.jsonl")
    assert made["token_ids"] == ids
    assert written["token_ids"] == both["token_ids"] == [*other, end]
    decode = tokenizer.backend_tokenizer.decode
    for row, expected in ((made, None), (written, SCORES), (both, SCORES)):
        ends = row["step_ends"]
        assert ends[-1] == len(row["token_ids"]) - 1
        assert decode(row["token_ids"][: ends[0] + 1]).startswith("2 + 3 = 5.")
        assert expected is None or row["step_scores"] == expected
    counts = [len(tokenizer(p, add_special_tokens=False).input_ids) for p in PIECES]
    assert written["step_ends"] == [sum(counts[:5]) - 1, sum(counts[:11]) - 1, len(other)]


def test_scores_go_through_maps_in_turn(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [ROW | {"id": 1}])
    maps = ("--map", "affine:scale=2,shift=-1", "--map", "smooth:amount=0.5", "--map", "clip:low=0")
    cache = ("--cache", "kept.sqlite")
    assert run("score", "in.jsonl", "-o", "out.jsonl", *SUMS, *maps, *cache).err == ""
    (row,) = read(tmp_path / "out.jsonl")
    assert row["step_scores"] == [0.75, 0.0, 0.25]
    assert run("score", "in.jsonl", "-o", "out.jsonl", *SUMS, *cache).err == ""
    assert read(tmp_path / "out.jsonl")[0]["step_scores"] == SCORES


def test_monte_carlo_takes_a_reward_by_name_and_tells_its_cost(run: Run, tmp_path: Path) -> None:
    code = "def complete(prompt, prefix, n, seed):\n    return ['5'] * n"
    (tmp_path / "fives.py").write_text(code)
    row = {"group": 1, "prompt": "2+3?", "text": "a\n\n6", "gold": "a\n\n5"}
    write(tmp_path / "in.jsonl", [row])
    reward = '{"name": "exact", "answer": "gold"}'
    given = ("sampler=fives:complete", f"reward={reward}", "n=2")
    options = [word for field in given for word in ("--set", field)]
    ended = run("score", "in.jsonl", "-o", "out.jsonl", "--signal", "monte-carlo", *options)
    assert ended.err.startswith("monte-carlo: 2 completions of 1 prefix")
    assert read(tmp_path / "out.jsonl")[0]["step_scores"] == [1.0, 0.0]


PROMPTS = """
def count(response):
    return [float(len(response.prompt_ids))] * len(response.steps)
"""


def test_a_templated_prompt_gets_no_second_start_token(run: Run, tmp_path: Path) -> None:
    tokenizer = byte_level()
    start = tokenizer.eos_token
    tokenizer.bos_token = start
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, tokenizer.eos_token_id)]
    )
    tokenizer.save_pretrained(tmp_path / "policy")
    (tmp_path / "prompt_lengths.py").write_text(PROMPTS)
    rows = [{"group": 1, "prompt": prompt, "text": "5"} for prompt in ("2+3?", f"{start}2+3?")]
    write(tmp_path / "in.jsonl", rows)
    counting = ("--signal", "callable", "--set", "function=prompt_lengths:count")
    options = (*counting, "--tokenizer", "policy")
    assert run("score", "in.jsonl", "-o", "out.jsonl", *options).err == ""
    plain, templated = (row["step_scores"] for row in read(tmp_path / "out.jsonl"))
    assert plain == templated
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *options, "--chat")
    assert (ended.code, ended.err) == (1, "--chat: policy has no chat template\n")


def test_streams_by_name_and_in_place_of_their_own(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [{"group": 1, "text": "1+1=2\n2+2=5"}])
    assert run("score", "in.jsonl", "-o", "in.jsonl", *SUMS, "--split", "newline").code == 0
    first = read(tmp_path / "in.jsonl")[0]
    assert (first["step_ends"], first["step_scores"]) == ([0, 1], [1.0, 0.0])
    before = (tmp_path / "in.jsonl").read_bytes()
    ended = run("score", "in.jsonl", "-o", "in.jsonl", *SUMS)
    reason = "is there already: --replace it, or give the scores another name (--as)"
    assert (ended.code, ended.err) == (1, f"in.jsonl:1: step_scores: {reason}\n")
    assert (tmp_path / "in.jsonl").read_bytes() == before
    assert run("score", "in.jsonl", "-o", "in.jsonl", *SUMS, "--as", "sums").code == 0
    assert read(tmp_path / "in.jsonl")[0]["signals"] == {
        "sums": {"scores": [1.0, 0.0], "ends": [0, 1]}
    }
    ended = run("score", "in.jsonl", "-o", "in.jsonl", *SUMS, "--as", "sums")
    assert ended.err == f"in.jsonl:1: signals.sums: {reason}\n"
    options = (*SUMS, "--replace", "--split", "regex:pattern=never", "--set", "neutral=-1")
    assert run("score", "in.jsonl", "-o", "in.jsonl", *options, "--as", "sums").code == 0
    assert run("score", "in.jsonl", "-o", "in.jsonl", *options).code == 0
    last = read(tmp_path / "in.jsonl")[0]
    assert (last["step_ends"], last["step_scores"]) == ([1], [0.0])
    assert last["signals"] == {"sums": {"scores": [0.0], "ends": [1]}}
    assert sc.read_rollouts(tmp_path / "in.jsonl").num_rollouts == 1


def test_scores_a_token(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def lengths(response):\n    return [-(end - start) / 8 for start, end in response.spans]\n"
    )
    write(tmp_path / "in.jsonl", [{"group": 1, "text": "ab c\n\nd"}])
    tokens = ("--signal", "callable", "--set", "function=mine:lengths", "--set", "per=tokens")
    assert run("score", "in.jsonl", "-o", "out.jsonl", *tokens).err == ""
    assert read(tmp_path / "out.jsonl")[0]["token_scores"] == [-0.375, -0.375, -0.125]
    assert run("score", "in.jsonl", "-o", "log.jsonl", *tokens, "--as", "ref_logprobs").code == 0
    assert read(tmp_path / "log.jsonl")[0]["ref_logprobs"] == [-0.375, -0.375, -0.125]
    assert run("score", "in.jsonl", "-o", "own.jsonl", *tokens, "--as", "own").code == 0
    own = {"own": {"scores": [-0.375, -0.375, -0.125]}}
    assert read(tmp_path / "own.jsonl")[0]["signals"] == own
    ended = run("score", "out.jsonl", "-o", "out.jsonl", *SUMS)
    reason = "stand in the row: give scores of steps another name (--as)"
    assert ended.err == f"out.jsonl:1: token_scores: {reason}\n"


def test_scattered_groups_keep_the_order_in_every_form(run: Run, tmp_path: Path) -> None:
    rows = many(300)
    write(tmp_path / "in.jsonl", rows)
    content = (tmp_path / "in.jsonl").read_bytes()
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress(content))
    assert run("score", "in.jsonl", "-o", "out.jsonl", *SUMS).code == 0
    out = read(tmp_path / "out.jsonl")
    for i, row in enumerate(out):
        assert row | rows[i] == row
        assert row["step_scores"] == [float(i % 3 == 1), 0.5]
    whole = (tmp_path / "out.jsonl").read_bytes()
    assert run("score", "in.jsonl.gz", "-o", "out.jsonl.gz", *SUMS).code == 0
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == whole
    piped = run("score", "-", "-o", "-", *SUMS, stdin=content)
    assert (piped.code, piped.out.encode()) == (0, whole)
    assert run("score", "in.jsonl", "-o", "out.parquet", *SUMS).code == 0
    assert list(sc.read_rows(tmp_path / "out.parquet")) == out
    options = (*SUMS, "--as", "more")
    assert run("score", "out.parquet", "-o", "out.parquet", *options).code == 0
    for row, again in zip(out, sc.read_rows(tmp_path / "out.parquet"), strict=True):
        more = {"more": {"scores": row["step_scores"], "ends": row["step_ends"]}}
        assert again == row | {"signals": more}
    assert run("score", "out.parquet", "-o", "back.jsonl", *SUMS, "--replace").code == 0
    assert [row["step_scores"] for row in read(tmp_path / "back.jsonl")] == [
        row["step_scores"] for row in out
    ]


def test_score_then_shape_through_pipes(tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", many(60))
    command = "{0} -m stepcredit score - -o - --signal arithmetic < in.jsonl | "
    command += "{0} -m stepcredit shape - -o - --method pass > out.jsonl"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.format(sys.executable)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    shaped = read(tmp_path / "out.jsonl")
    expected = sc.PASS()(sc.read_rollouts(tmp_path / "out.jsonl")).ragged()
    for row, advantages in zip(shaped, expected, strict=True):
        assert row["advantages"] == pytest.approx(advantages.tolist(), abs=1e-6)


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
        "step_ends: a step holds no text: split it anew",
    ),
    "ends that the text does not tell": (
        {"group": 1, "tokens": ["a", "", "b"], "step_ends": [0, 2]},
        "step_ends: are [0, 2], but by the text [1, 2]: split it anew",
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
        "tokens: 2 values, but the response has 3 tokens",
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
    ((*SUMS, "--as", "outcome"), "--as outcome: this name is taken: a stream needs another"),
    (
        (*SUMS, "--as", "teacher_logprobs"),
        "--as teacher_logprobs: arithmetic scores steps, log-probs are one a token",
    ),
    (
        (*SUMS, "--split", "blnk"),
        "--split blnk: unknown splitter 'blnk': expected blank-line, newline, newline-tokens, "
        "regex, sentence, tags",
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
        ("--signal", "monte-carlo", "--set", "reward=math"),
        "--set reward: unknown reward 'math', did you mean 'maths'?",
    ),
    (
        ("--signal", "shared-prefix", "--cache", "c.sqlite"),
        "--cache: the scores of shared-prefix depend on the other responses",
    ),
    ((*SUMS, "--cache", "no/c.sqlite"), "no/c.sqlite: unable to open database file"),
    ((*SUMS, "--cache", "in.jsonl"), "in.jsonl: file is not a database"),
    ((*SUMS, "--import", "nothing"), "--import nothing: No module named 'nothing'"),
]


@pytest.mark.parametrize(("options", "line"), SETTINGS)
def test_a_bad_option_is_named(
    options: tuple[str, ...], line: str, run: Run, tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", [ROW | {"id": 1}])
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *options)
    expected = line + ("'arithmetic'?" if line.endswith("mean ") else "") + "\n"
    assert (ended.code, ended.out, ended.err) == (1, "", expected)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_files_that_cannot_be_opened_are_named(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", [ROW | {"id": 1}])
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
    write(tmp_path / "in.jsonl", [ROW | {"id": 1}])
    before = set(os.listdir("/dev"))
    assert run("score", "in.jsonl", "-o", "/dev/null", *SUMS).code == 0
    failing = ("--signal", "callable", "--set", "function=fails:now")
    ended = run("score", "in.jsonl", "-o", "/dev/null", *failing)
    line = "in.jsonl:1: function: ZeroDivisionError: division by zero\n"
    assert (ended.code, ended.err) == (1, line)
    assert set(os.listdir("/dev")) == before


COUNTED = """
import os, time
def slow(response):
    with open("calls", "a") as calls:
        calls.write(response.text + "\\n")
    if os.environ.get("FAIL_AT") == response.text:
        raise RuntimeError("the server went away")
    time.sleep(float(os.environ.get("NAP", "0")))
    return [float(len(step)) for step in response.step_texts]
"""
SLOW = ("--signal", "callable", "--set", "function=counted:slow")


def texts(count: int) -> list[dict[str, Any]]:
    return [{"group": i % 5, "text": f"answer {i}\n\nso {i * i}"} for i in range(count)]


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().split("\n\n")


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    write(tmp_path / "in.jsonl", texts(60))
    (tmp_path / "out.jsonl").write_text("as it was")
    command = [sys.executable, "-m", "stepcredit", "score", "in.jsonl", "-o", "out.jsonl", *SLOW]
    napping = environment() | {"NAP": "0.05"}
    process = subprocess.Popen(command, cwd=tmp_path, env=napping)
    deadline = time.monotonic() + 60
    while not (tmp_path / "calls").exists() or (tmp_path / "calls").read_text().count("so") < 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (tmp_path / "out.jsonl").read_text() == "as it was"
    first = (tmp_path / "calls").read_text().count("so")
    assert 20 <= first < 60
    assert (tmp_path / ".out.jsonl.scored.sqlite").exists()
    again = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True)
    assert (again.returncode, again.stdout, again.stderr) == (0, b"", b"")
    assert 60 <= (tmp_path / "calls").read_text().count("so") <= 61
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    assert {name for name in left if "sqlite" in name} == set()
    whole = [*command[:6], "whole.jsonl", *SLOW]
    assert subprocess.run(whole, cwd=tmp_path, env=environment()).returncode == 0
    assert (tmp_path / "whole.jsonl").read_bytes() == (tmp_path / "out.jsonl").read_bytes()
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == [r["text"] for r in texts(60)]


def test_a_failing_signal_says_what_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "in.jsonl", texts(30))
    monkeypatch.setenv("FAIL_AT", "answer 12\n\nso 144")
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *SLOW)
    kept = "what was scored is kept in .out.jsonl.scored.sqlite: run the same command to go on"
    failed = "in.jsonl:13: function: RuntimeError: the server went away"
    assert (ended.code, ended.err) == (1, f"{kept}\n{failed}\n")
    assert not (tmp_path / "out.jsonl").exists()
    done = (tmp_path / "calls").read_text().count("so")
    monkeypatch.delenv("FAIL_AT")
    assert run("score", "in.jsonl", "-o", "out.jsonl", *SLOW).err == ""
    assert (tmp_path / "calls").read_text().count("so") == 30 + 1 <= done + 30
    assert not list(tmp_path.glob(".out*"))


def test_a_cache_is_kept_and_shared(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "in.jsonl", [*texts(10), *texts(10)])
    for output in ("a.jsonl", "b.jsonl"):
        options = (*SLOW, "--cache", "scores.sqlite")
        assert run("score", "in.jsonl", "-o", output, *options).err == ""
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "calls").read_text().count("so") in (10, 20)
    assert not list(tmp_path.glob(".*.sqlite"))


def test_a_progress_bar_counts_rows(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.jsonl", many(40))
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("FORCE_COLOR", "1")
    ended = run("score", "in.jsonl", "-o", "out.jsonl", *SUMS)
    assert ended.code == 0
    assert "scoring with arithmetic" in ended.err
    assert "40/40" in ended.err
