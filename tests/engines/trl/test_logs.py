"""What TRL and verl log, as rollouts: files that TRL wrote, and verl's form to the letter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tests.engines.trl.conftest import TINY
from transformers import PrinterCallback
from trl import GRPOTrainer
from typer.testing import CliRunner

import stepcredit as sc
from stepcredit.cli import app
from stepcredit.data.files.parquet import as_lines
from stepcredit.errors import FileError, RowError, SettingError
from stepcredit.lab.model import build_model
from stepcredit.logs.logged_response import RewardColumns
from stepcredit.logs.read_log import read_completion_logs, read_verl_dumps

PROMPTS = ["1+2=", "3+4=", "5+6=", "7+8="]
TEMPLATE = "{% for turn in messages %}{{ turn['content'] }}{% endfor %}"


def words_of(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[0]["content"]


def length(completions: list[Any], **_: Any) -> list[float]:
    """A reward that tells completions apart."""
    return [float(len(words_of(each))) for each in completions]


def digits(completions: list[Any], **_: Any) -> list[float]:
    return [float(sum(map(str.isdigit, words_of(each)))) for each in completions]


@pytest.fixture
def logged(task: Any, config: Callable[..., Any]) -> Callable[..., tuple[Path, list[Any]]]:
    """Runs TRL's trainer; gives the folder it logged into, and what its rewards saw."""

    def train(
        prompts: list[Any], rewards: list[Any], asked: str | None = None, **changes: Any
    ) -> tuple[Path, list[Any]]:
        torch.manual_seed(0)
        seen: list[Any] = []

        def watch(prompts: list[Any], completions: list[Any], **_: Any) -> list[None]:
            seen.append(list(zip(prompts, completions, strict=True)))
            return [None] * len(prompts)

        tokenizer = task.tokenizer
        tokenizer.chat_template = TEMPLATE
        args = config(log_completions=True, logging_steps=1, num_completions_to_print=0, **changes)
        trainer = GRPOTrainer(
            model=build_model(tokenizer, TINY),
            reward_funcs=[*rewards, watch],
            args=args,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            eval_dataset=asked and Dataset.from_list([{"prompt": asked}]),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return Path(args.output_dir) / "completions", seen

    return train


def run(*arguments: str | Path) -> tuple[int, str, str]:
    ended = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.stdout, ended.stderr


def use(path: Path) -> None:
    """What a user does next."""
    assert run("validate", path)[0] == 0
    assert run("score", path, "-o", path, "--signal", "arithmetic")[::2] == (0, "")
    assert run("shape", path, "-o", path, "--method", "pass")[::2] == (0, "")
    for row in sc.read_rows(path):
        assert len(row["advantages"]) == len(row.get("tokens") or row["token_ids"])


def test_plain_completions_that_trl_logged(logged: Any, tmp_path: Path) -> None:
    """Four optimizer steps on two generations: each is logged twice, and converted once."""
    folder, seen = logged(PROMPTS, [length])
    assert sorted(path.name for path in folder.iterdir()) == [
        f"completions_{step:05d}.parquet" for step in (1, 2, 3, 4)
    ]
    out = tmp_path / "out.jsonl"
    code, _, err = run("convert", "trl-completions", folder, "-o", out)
    third = folder / "completions_00003.parquet"
    line = f"{third}:1: text: is empty: a response needs at least one token; left out (1 row)"
    assert (code, err.splitlines()[0]) == (0, f"warning: {line}")
    assert err.splitlines()[1] == "warning: groups that lost responses: 3/0 (3 of 4 left)"
    assert "the log names no groups" in err.splitlines()[2]
    rows = list(sc.read_rows(out))
    expected = [pair for generation in seen for pair in generation if pair[1]]
    assert len(rows) == len(expected) == 15
    for row, (prompt, completion) in zip(rows, expected, strict=True):
        assert (row["prompt"], row["text"]) == (prompt, completion)
        assert row["outcome"] == row["logged_length"] == len(completion)
        assert "".join(row["tokens"]) == completion
    groups = [f"{step}/{number}" for step in (1, 3) for number in (0, 1) for _ in range(4)]
    groups.remove("3/0")
    assert [row["group"] for row in rows] == groups
    use(out)


def test_conversations_that_trl_logged(logged: Any, tmp_path: Path, task: Any) -> None:
    system = {"role": "system", "content": "Add. "}
    asked = [[system, {"role": "user", "content": prompt}] for prompt in PROMPTS]
    folder, seen = logged(asked, [length, digits], max_steps=1, steps_per_generation=2)
    task.tokenizer.save_pretrained(tmp_path / "policy")
    out = tmp_path / "out.parquet"
    code, _, err = run("convert", "trl-completions", folder, "-o", out)
    only = folder / "completions_00001.parquet"
    line = f"--outcome: name the column of the outcome reward: {only} has digits, length\n"
    assert (code, err) == (1, line)
    options = ("--outcome", "length", "--format", "digits", "--tokenizer", tmp_path / "policy")
    code, _, err = run("convert", "trl-completions", only, "-o", out, *options)
    assert code == 0
    assert "the log names no groups" in err
    assert "8 responses without logged token ids: the tokenizer makes tokens of the text" in err
    assert err.count("warning: ") == 2
    rows = list(sc.read_rows(out))
    assert len(rows) == len(seen[0]) == 8
    for row, (prompt, completion) in zip(rows, seen[0], strict=True):
        text = completion[0]["content"]
        assert (row["prompt"], row["text"]) == (prompt[1]["content"], text)
        assert row["outcome"] == len(text)
        assert row["format"] == sum(map(str.isdigit, text))
        assert row["token_ids"] == task.tokenizer(text, add_special_tokens=False)["input_ids"]
    code, _, err = run("convert", "trl-completions", only, "-o", out, "--outcome", "accuracy")
    line = f"--outcome accuracy: no such column in {only}: numbers are step, length, digits, "
    assert (code, err) == (1, line + "advantage\n")


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as arrow
    import pyarrow.parquet

    arrow.parquet.write_table(arrow.Table.from_pylist(rows), path)
    return path


def entry(prompt: Any, completion: Any, reward: float | None, **more: Any) -> dict[str, Any]:
    row = {"step": 1, "prompt": prompt, "completion": completion, "right": reward}
    return row | {"advantage": 0.5} | more


def test_tool_turns_are_not_trained(tmp_path: Path) -> None:
    turns = [
        {"role": "assistant", "content": "Let me see. "},
        {"role": "tool", "content": "5 apples"},
        {"role": "assistant", "content": " So 5."},
    ]
    path = table(tmp_path / "completions_1.parquet", [entry("?", turns, 1.0)])
    with pytest.warns(UserWarning, match="line breaks|one response"):
        (row,) = read_completion_logs(path)
    told = "\n<tool_response>\n5 apples\n</tool_response>\n"
    assert row["text"] == f"Let me see. {told} So 5."
    pieces = zip(row["tokens"], row["loss_mask"], strict=True)
    assert "".join(piece for piece, own in pieces if not own) == told
    assert (row["group"], row["outcome"], row["right"]) == ("1/0", 1.0, 1.0)


def test_evaluations_among_the_completions_that_trl_logged(logged: Any, tmp_path: Path) -> None:
    """Each pushes two responses of training out of the table; the second stands beside the first
    where no generation came between."""
    evaluated = {"eval_strategy": "steps", "eval_steps": 1, "num_generations_eval": 2}
    folder, _ = logged(PROMPTS, [length], "9+9=", per_device_eval_batch_size=2, **evaluated)
    out = tmp_path / "out.jsonl"
    first, second = (folder / f"completions_0000{step}.parquet" for step in (1, 2))
    with as_lines(str(first)) as lines:
        prompts = [json.loads(line)["prompt"] for line in lines]
    assert prompts[-2:] == ["9+9="] * 2
    assert "9+9=" not in prompts[:6]
    reason = "is it cut off by an evaluation's? leave the file out, or give --group-size"
    line = f"{first}:1: group: 2 responses to this prompt, but 4 to another: {reason}\n"
    assert run("convert", "trl-completions", folder, "-o", out) == (1, "", line)
    ended = run("convert", "trl-completions", folder, "-o", out, "--group-size", 2)
    line = f"{second}:7: an evaluation's, after 6 of the table before: leave the file out\n"
    assert ended == (1, "", line)
    assert not out.exists()


def test_a_policy_that_says_the_same_again_is_no_evaluation(tmp_path: Path) -> None:
    for step in (1, 2):
        rows = [entry("a", "x", 1.0, step=step) for _ in range(4)]
        rows[-1 if step == 2 else 0]["completion"] = "y"
        table(tmp_path / f"completions_{step}.parquet", rows)
    groups = [row["group"] for row in read_completion_logs(tmp_path)]
    assert groups == ["1/0"] * 4 + ["2/0"] * 4


@pytest.mark.parametrize(("sizes", "line"), [((2, 4, 4), 1), ((4, 4, 2), 9), ((1, 4, 3), 1)])
def test_a_group_cut_off_at_a_tables_end_is_refused(
    sizes: tuple[int, ...], line: int, tmp_path: Path
) -> None:
    rows = [entry("abc"[at], f"x{n}", 1.0) for at, size in enumerate(sizes) for n in range(size)]
    path = table(tmp_path / "completions_1.parquet", rows)
    with pytest.raises(RowError) as raised:
        list(read_completion_logs(path))
    size = sizes[0] if line == 1 else sizes[-1]
    place = f"{path}:{line}: group: {size} responses to this prompt, but 4 to another: "
    assert str(raised.value).startswith(place)


def test_groups_follow_the_prompt_or_the_size_told(tmp_path: Path) -> None:
    rows = [entry("a", f"x{i}", float(i)) for i in range(4)]
    rows += [entry("b", f"y{i}", float(i)) for i in range(2)]
    rows += [entry("c", f"z{i}", float(i)) for i in range(4)]
    path = table(tmp_path / "completions_1.parquet", rows)

    def groups(**columns: Any) -> list[str]:
        return [row["group"] for row in read_completion_logs(path, RewardColumns(**columns))]

    assert groups() == ["1/0"] * 4 + ["1/1"] * 2 + ["1/2"] * 4
    assert groups(group_size=2) == [f"1/{number}" for number in range(5) for _ in range(2)]
    with pytest.raises(RowError) as raised:
        groups(group_size=4)
    reason = "group: 2 responses to this prompt, not a multiple of 4"
    assert str(raised.value) == f"{path}:5: {reason}"


MESSAGES = "expected a text, or messages of role and content"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"step": 1, "prompt": "a", "right": 1.0}], "1: completion: missing"),
        ([entry([{"role": "user"}], "x", 1.0)], f"1: prompt: {MESSAGES}"),
        ([entry("a", [5], 1.0)], f"1: completion: {MESSAGES}"),
        ([entry("a", "x", 1.0, fine="b")], "1: fine: expected a number, got 'b'"),
    ],
)
def test_what_is_no_log_of_trl_is_refused(
    rows: list[dict[str, Any]], reason: str, tmp_path: Path
) -> None:
    path = table(tmp_path / "completions_1.parquet", rows)
    format = "fine" if "fine" in rows[0] else None
    with pytest.raises(RowError) as raised:
        list(read_completion_logs(path, RewardColumns(outcome="right", format=format)))
    assert str(raised.value) == f"{path}:{reason}"


def test_folders_without_logs_are_named(tmp_path: Path) -> None:
    for rows_of, pattern in (
        (read_completion_logs, "completions_*.parquet"),
        (read_verl_dumps, "*.jsonl"),
    ):
        with pytest.raises(FileError) as raised:
            list(rows_of(tmp_path))
        assert str(raised.value) == f"{tmp_path}: no {pattern} in this folder"


def dump_as_verl(folder: Path, step: int, samples: list[dict[str, Any]]) -> None:
    """verl 0.9.1's `_write_generations`, in its order of keys and with its way of writing."""
    folder.mkdir(exist_ok=True)
    with open(folder / f"{step}.jsonl", "w") as file:
        for sample in samples:
            base = {name: sample[name] for name in ("input", "output", "gts", "score")}
            extra = {name: value for name, value in sample.items() if name not in base}
            line = json.dumps(base | {"step": step} | extra, ensure_ascii=False, default=as_verl)
            file.write(line + "\n")


def as_verl(value: Any) -> Any:
    for kind, plain in ((np.integer, int), (np.floating, float), (np.bool_, bool)):
        if isinstance(value, kind):
            return plain(value)
    return value.tolist()


def sampled(sample: str, rollout: int, **more: Any) -> dict[str, Any]:
    question = f"user\n{sample}: 2+3?\nassistant\n"
    answer = f"2 + 3 = {5 + rollout}.\n\nSo {5 + rollout} 🍎."
    own = {"input": question, "output": answer, "gts": "5", "score": float(rollout == 0)}
    return own | {"uid": f"{sample}_{rollout}_0"} | more


def test_what_verl_dumps(tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    for step in (2, 10, 1):
        dump_as_verl(
            folder,
            step,
            [
                sampled(sample, rollout, acc=np.bool_(rollout == 0), length=np.int64(2))
                for sample in ("a_b", "a_c")
                for rollout in range(3)
            ],
        )
    out = tmp_path / "out.jsonl"
    assert run("convert", "verl-rollouts", folder, "-o", out)[::2] == (0, "")
    rows = list(sc.read_rows(out))
    assert [row["group"] for row in rows] == [
        f"{step}/{number}" for step in (1, 2, 10) for number in (0, 1) for _ in range(3)
    ]
    first = sampled("a_b", 1)
    assert {name: rows[1][name] for name in ("prompt", "text", "answer", "outcome", "uid")} == {
        "prompt": "a_b: 2+3?",
        "text": first["output"],
        "answer": "5",
        "outcome": 0.0,
        "uid": "a_b_1_0",
    }
    assert rows[1]["input"] == first["input"]
    assert (rows[1]["acc"], rows[1]["logged_length"], rows[1]["score"]) == (False, 2, 0.0)
    assert "".join(rows[1]["tokens"]) == first["output"]
    use(out)
    scores = [row["step_scores"] for row in sc.read_rows(out)]
    assert scores == [[1.0, 0.5], [0.0, 0.5], [0.0, 0.5]] * 6


def test_verl_without_names_of_samples(tmp_path: Path) -> None:
    """Older trainers dump no uid: responses in a row to the same input are a group."""
    samples = [sampled(sample, rollout) for sample in "ab" for rollout in range(4)]
    for sample in samples:
        del sample["uid"], sample["gts"]
        sample["gts"] = None
    dump_as_verl(tmp_path / "dump", 3, samples)
    rows = list(read_verl_dumps(tmp_path / "dump/3.jsonl", RewardColumns(group_size=2)))
    assert [row["group"] for row in rows] == ["3/0"] * 2 + ["3/1"] * 2 + ["3/2"] * 2 + ["3/3"] * 2
    assert "answer" not in rows[0]
    rows = list(read_verl_dumps(tmp_path / "dump", RewardColumns(outcome="score", format="score")))
    assert [row["group"] for row in rows] == ["3/0"] * 4 + ["3/1"] * 4
    assert [row["format"] for row in rows] == [row["outcome"] for row in rows]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "expected an object"),
        ('{"output": "a", "score": 1}', "input: missing"),
        ('{"input": "a", "output": 5, "score": 1}', "output: expected a string, got 5"),
        ('{"input": "a", "output": "b", "score": "c"}', "score: expected a number, got 'c'"),
        ("{", "is not JSON: Expecting property name enclosed in double quotes at column 2"),
    ],
)
def test_what_is_no_dump_of_verl_is_left_out_and_named(
    line: str, reason: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "1.jsonl", tmp_path / "out.jsonl"
    good = '{"input": "a", "output": "b", "score": 1, "step": 1}\n'
    path.write_text(f"{good}{line}\n{good}")
    code, _, err = run("convert", "verl-rollouts", path, "-o", out)
    assert (code, [row["group"] for row in sc.read_rows(out)]) == (0, ["1/0", "1/0"])
    assert f"warning: {path}:2: {reason}; left out (1 row)\n" in err


def test_a_reward_that_is_not_there(tmp_path: Path) -> None:
    dump_as_verl(tmp_path / "dump", 1, [sampled("a", 0)])
    with pytest.raises(SettingError) as raised:
        list(read_verl_dumps(tmp_path / "dump", RewardColumns(format="fmt")))
    path = tmp_path / "dump/1.jsonl"
    assert str(raised.value) == f"--format fmt: no such column in {path}: numbers are score, step"


def test_nothing_to_convert(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text("\n")
    for output in ("out.jsonl", "out.parquet"):
        ended = run("convert", "verl-rollouts", tmp_path / "1.jsonl", "-o", tmp_path / output)
        assert ended == (1, "", f"{tmp_path / '1.jsonl'}: there are no rollouts in it\n")
        assert not (tmp_path / output).exists()
