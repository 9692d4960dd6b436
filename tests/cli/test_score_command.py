"""`stepcredit score`: what it writes, and from what."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
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
    line = "in.jsonl:1: steps: step 0 ends inside token 2 ('.\\n\\nThen'); the splitter's field "
    line += "inside=extend ends it with that token\n"
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


def test_progress_of_a_signal_inside_whose_reward_has_a_name(run: Run, tmp_path: Path) -> None:
    code = "def complete(prompt, prefix, n, seed):\n    return ['5'] * n"
    (tmp_path / "ones.py").write_text(code)
    row = {"group": 1, "prompt": "2+3?", "text": "a\n\n6", "gold": "a\n\n5"}
    write(tmp_path / "in.jsonl", [row])
    reward = {"name": "exact", "answer": "gold"}
    inner = {"monte-carlo": {"sampler": "ones:complete", "reward": reward, "n": 2}}
    options = ("--set", f"signal={json.dumps(inner)}", "--set", "start=0.5")
    ended = run("score", "in.jsonl", "-o", "out.jsonl", "--signal", "difference", *options)
    assert ended.err.startswith("monte-carlo: 2 completions of 1 prefix")
    assert read(tmp_path / "out.jsonl")[0]["step_scores"] == [0.5, -1.0]
    options = ("--set", 'signal={"monte-karlo": {}}')
    ended = run("score", "in.jsonl", "-o", "out.jsonl", "--signal", "difference", *options)
    line = "--set signal: unknown signal 'monte-karlo', did you mean 'monte-carlo'?\n"
    assert (ended.code, ended.err) == (1, line)


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
