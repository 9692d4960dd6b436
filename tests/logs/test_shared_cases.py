"""The inputs on which conversions went wrong, through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.logs.conftest import Convert, advantages, read_lines, run

ALONE = "every group has one response"
ONE = 0.70710576


@pytest.fixture
def cases(shared_dir: Path) -> Path:
    folder = shared_dir / "cases"
    if not folder.is_dir():
        pytest.skip("the shared cases are not here")
    return folder / "formats"


def test_scattered_rows_of_a_prompt_are_one_group(
    cases: Path, convert: Convert, tmp_path: Path
) -> None:
    ended = convert(cases / "verl_scattered.jsonl")
    assert [row["group"] for row in ended.rows] == ["1/0", "1/1", "1/0", "1/1"]
    assert advantages(ended.rows, tmp_path) == pytest.approx([0, -ONE, 0, ONE])


def test_two_groups_of_one_prompt_are_said(cases: Path, convert: Convert) -> None:
    source = cases / "verl_same_prompt_two_groups.jsonl"
    (said,) = convert(source).said
    assert "the log names no groups" in said
    assert "--group-size N" in said
    ended = convert(source, "--group-size", "4")
    assert (ended.said, [row["group"] for row in ended.rows]) == ([], ["1/0"] * 4 + ["1/1"] * 4)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("verl_empty_output.jsonl", ["3+4=7 \\boxed{7}"]),
        ("trl_empty_completion", ["\\boxed{7}"]),
        ("verl_score_null.jsonl", ["a \\boxed{7}"]),
        ("verl_score_nan.jsonl", ["b"]),
    ],
)
def test_the_other_rows_are_kept(
    name: str, texts: list[str], cases: Path, convert: Convert
) -> None:
    ended = convert(cases / name)
    assert (ended.code, [row["text"] for row in ended.rows]) == (0, texts)
    said = "\n".join(ended.said)
    assert "left out (1 row)" in said
    assert "groups that lost responses: 1/0 (1 of 2 left)" in said
    assert ALONE in said


def test_a_tools_line_is_not_trained(cases: Path, convert: Convert, tmp_path: Path) -> None:
    ended = convert(cases / "verl_tools.jsonl")
    row = ended.rows[0]
    assert row["prompt"] == "What is 3+4?"
    hidden = zip(row["tokens"], row["loss_mask"], strict=True)
    tool = "".join(token for token, own in hidden if not own)
    assert tool == "\nuser\n<tool_response>\n5 + 5 = 11\n</tool_response>\nassistant\n"
    assert "1 response with a tool's answer by its marks" in ended.said[0]
    path = tmp_path / "rollouts.jsonl"
    options = ("--signal", "arithmetic", "--split", "newline")
    assert run("score", path, "-o", path, *options)[0] == 0
    code, _, err = run("shape", path, "-o", path, "--method", "pass")
    assert (code, "5 steps without a trained token are left out" in err) == (0, True)
    shaped = read_lines(path)[0]
    both = zip(shaped["advantages"], shaped["loss_mask"], strict=True)
    assert all((credit == 0) == (own == 0) for credit, own in both)


def test_a_list_of_golds_under_target(cases: Path, convert: Convert, tmp_path: Path) -> None:
    ended = convert(cases / "verl_gts_dict.jsonl")
    assert [row["answer"] for row in ended.rows] == [["Paris"], ["Paris"]]
    path = tmp_path / "rollouts.jsonl"
    assert run("reward", path, "-o", path, "--reward", "qa-em")[0] == 0
    assert [row["outcome"] for row in read_lines(path)] == [1.0, 0.0]


def test_a_reward_that_is_none_for_one_prompt(cases: Path, convert: Convert) -> None:
    source = cases / "trl_none_for_one_prompt"
    ended = convert(source, "--outcome", "maths", "--format", "format")
    (said,) = ended.said
    assert "2 responses with an unknown reward, as all of their group: written as null" in said
    assert [row["outcome"] for row in ended.rows] == [None, None, 1.0, 0.0]
    ended = convert(source)
    assert ended.code == 1
    assert ended.said[0].endswith("has format, maths")


def test_tool_calls_and_reasoning_are_kept(cases: Path, convert: Convert) -> None:
    ended = convert(cases / "trl_tool_call")
    assert ended.rows[0]["text"] == (
        '<tool_call>\n{"name": "add", "arguments": {"a": 3, "b": 4}}\n</tool_call>'
        "\n<tool_response>\n7\n</tool_response>\nIt is 7."
    )
    assert sum(ended.rows[0]["loss_mask"]) == len(ended.rows[0]["tokens"]) - 4
    ended = convert(cases / "trl_reasoning_content")
    assert ended.rows[0]["text"] == "<think>\n3+4=8\n\nno, 3+4=7\n</think>\n\n7"


FORMATS = {
    "agentprocess.jsonl": {"step_scores": [1.0, -1.0], "prompt": "q"},
    "messages.jsonl": {"text": "7", "outcome": 1.0, "prompt": "What is 3+4?"},
    "qwen25_eval.jsonl": {"text": "3+4=7 \\boxed{7}", "outcome": 1.0, "answer": "7"},
    "results.jsonl": {"text": "<think>3+4=7</think>\\boxed{7}", "outcome": 1.0, "answer": "7"},
    "samples_gsm8k_x.jsonl": {"text": "3+4=7\n#### 7", "outcome": 1.0, "answer": "7"},
    "slime_samples.jsonl": {"token_ids": [4, 5], "loss_mask": [1, 1], "answer": "7"},
    "verl_ok.jsonl": {"text": "3+4=7\n\nSo \\boxed{7}.", "outcome": 1.0, "acc": True},
    "verl_reward_extra.jsonl": {"text": "x", "outcome": 1.0, "answer": "7"},
    "verl_score_str.jsonl": {"text": "a \\boxed{7}", "outcome": 1.0, "answer": "7"},
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_read(name: str, cases: Path, convert: Convert, tmp_path: Path) -> None:
    ended = convert(cases / name)
    assert ended.code == 0
    assert ended.rows[0]["prompt"] in ("What is 3+4?", "q")
    assert {field: ended.rows[0][field] for field in FORMATS[name]} == FORMATS[name]
    code, out, _ = run("validate", tmp_path / "rollouts.jsonl")
    assert (code, f"{len(ended.rows)} in 1 group" in out) == (0, True)
    if len(ended.rows) == 1:
        assert ALONE in ended.said[-1]
        assert ALONE in run("validate", tmp_path / "rollouts.jsonl")[2]


def test_columns_of_lists(cases: Path, convert: Convert) -> None:
    options = ("--outcome", "MathAccuracy", "--format", "Format")
    ended = convert(cases / "swift_completions.jsonl", *options)
    assert (ended.code, ended.said) == (0, [])
    assert [(row["group"], row["prompt"], row["text"]) for row in ended.rows] == [
        ("0/0", "What is 3+4?", "3+4=7 \\boxed{7}"),
        ("0/0", "What is 3+4?", "8"),
    ]
    assert [(row["outcome"], row["format"]) for row in ended.rows] == [(1.0, 1.0), (0.0, 0.0)]


@pytest.mark.parametrize(
    "name", ["prmbench.jsonl", "processbench.json", "processbench_pretty.json", "shepherd_ok.jsonl"]
)
def test_labelled_steps_are_named(name: str, cases: Path, convert: Convert) -> None:
    ended = convert(cases / name)
    assert ended.code == 1
    assert "looks like step-labelled rows" in ended.said[0]
    assert f"stepcredit prm eval {cases / name}" in ended.said[0]


@pytest.mark.parametrize("name", [*FORMATS, "swift_completions.jsonl"])
def test_other_commands_say_what_a_log_looks_like(name: str, cases: Path, tmp_path: Path) -> None:
    path = cases / name
    for command in (("validate", path), ("shape", path, "-o", tmp_path / "out.jsonl")):
        code, _, err = run(*command)
        assert (code, "group: missing" in err) == (1, True)
        assert f"stepcredit convert {path} -o rollouts.jsonl" in err
