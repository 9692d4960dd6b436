"""Odd rows of real logs: what is read, and what is said of the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.logs.conftest import Convert
from tests.prm.vocabularies import qwen

ASKED = [{"role": "user", "content": "2+3?"}]


def texts(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["group"], row["text"]) for row in rows]


@pytest.mark.parametrize("prompts", ["qqqq", "qqqqrrrr"])
def test_groups_of_one_size_may_be_two_of_one_prompt(convert: Convert, prompts: str) -> None:
    rows = [
        {"input": prompt, "output": f"a{at}", "score": at % 2, "step": 1}
        for at, prompt in enumerate(prompts)
    ]
    (said,) = convert(rows).said
    assert "the log names no groups" in said
    assert "(4 responses)" in said
    ended = convert(rows, "--group-size", "2")
    assert len({row["group"] for row in ended.rows}) == len(prompts) // 2
    assert ended.said == []


def test_a_call_that_is_json_in_a_text(convert: Convert) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 2}'}}
    turn = {"role": "assistant", "content": None, "tool_calls": [json.dumps(call)]}
    row = {"example_id": 0, "prompt": ASKED, "completion": [turn], "reward": 1.0, "task": "x"}
    (made,) = convert([row]).rows
    called = {"name": "add", "arguments": {"a": 2}}
    assert made["text"] == f"<tool_call>\n{json.dumps(called)}\n</tool_call>"


LOGS_WITH_NOTHING: dict[str, list[dict[str, Any]]] = {
    "verl": [
        {"input": "q", "output": text, "score": 1, "uid": "u", "step": 0} for text in ("a", None)
    ],
    "verifiers": [
        {"example_id": 0, "prompt": ASKED, "completion": said, "reward": 1.0, "task": "x"}
        for said in ([{"role": "assistant", "content": "a"}], [])
    ],
    "rollouts": [{"question": "q", "gold": "1", "rollouts": ["a", None]}],
    "objects": [
        {"question": "q", "rollouts": [{"text": "a", "reward": 1}, {"text": None, "reward": 0}]}
    ],
    "qwen": [{"problem": "q", "code": ["a", None], "score": [True, False], "gt": "1"}],
    "swift": [{"prompt": ["q", "q"], "completion": ["a", None], "right": [1.0, 0.0]}],
    "lm-eval": [{"doc_id": 0, "doc": {"question": "q"}, "resps": [["a", None]], "arguments": []}],
    "slime": [
        {"prompt": "q", "response": text, "response_length": 1, "group_index": 0, "reward": 1}
        for text in ("a", None)
    ],
}


@pytest.mark.parametrize("name", LOGS_WITH_NOTHING)
def test_a_response_that_is_null_is_left_out_alone(convert: Convert, name: str) -> None:
    ended = convert(LOGS_WITH_NOTHING[name])
    assert [row["text"] for row in ended.rows] == ["a"]
    said = "\n".join(ended.said)
    assert "is empty: a response needs at least one token; left out (1 row)" in said
    assert "groups that lost responses: " in said


def test_a_first_row_without_responses(convert: Convert) -> None:
    rows = [{"question": "p", "rollouts": []}, {"question": "q", "rollouts": ["a", "b"]}]
    ended = convert(rows)
    assert [row["text"] for row in ended.rows] == ["a", "b"]
    assert any("rollouts: holds no response; left out (1 row)" in line for line in ended.said)


def test_requests_of_a_document_are_groups(convert: Convert) -> None:
    row = {
        "doc_id": 4,
        "doc": {"question": "q"},
        "arguments": {"gen_args_0": {"arg_0": "first?"}, "gen_args_1": {"arg_0": "second?"}},
        "resps": [["a", "b"], ["c", "d"]],
        "exact_match": 1.0,
    }
    ended = convert([row])
    assert texts(ended.rows) == [("0", "a"), ("0", "b"), ("1", "c"), ("1", "d")]
    assert [each["prompt"] for each in ended.rows] == ["first?"] * 2 + ["second?"] * 2
    assert any("several requests: each is a group" in line for line in ended.said)
    ended = convert([row | {"resps": [[["-1.2", "False"]], [["-3.4", "True"]]]}])
    assert ended.said[0].endswith(
        "resps: expected texts: log-likelihoods of choices are no responses"
    )
    ended = convert([row | {"resps": [["-1.2", "False"], ["-3.4", "True"]]}])
    assert ended.said[0].endswith("resps: log-likelihoods of choices are no responses")


def sample(**more: Any) -> dict[str, Any]:
    ids = qwen()("so 7")["input_ids"]
    made = {"prompt": "3+4?", "response": "so 7", "tokens": [1, *ids], "reward": 1.0}
    return made | {"response_length": len(ids), "group_index": 0, "label": "7"} | more


def test_a_dump_of_slime_and_what_it_does_not_train(convert: Convert) -> None:
    dump = {"rollout_id": 3, "samples": [sample(), sample(remove_sample=True), sample()]}
    ended = convert([dump])
    assert texts(ended.rows) == [("3/0", "so 7")] * 2
    said = "\n".join(ended.said)
    assert "remove_sample: slime does not train this response; left out (1 row)" in said
    assert "groups that lost responses: 3/0 (2 of 3 left)" in said
    ended = convert([sample(), sample(loss_mask=[1, 1, 1, 1, 1, 1, 1])])
    assert "groups that lost responses: 0 (1 of 2 left)" in "\n".join(ended.said)


def test_slimes_tokens_get_texts_by_the_tokenizer(convert: Convert, tmp_path: Any) -> None:
    qwen().save_pretrained(tmp_path / "tokenizer")
    (row,) = convert([sample()], "--tokenizer", tmp_path / "tokenizer").rows
    assert "".join(row["tokens"]) == row["text"] == "so 7"
    assert len(row["tokens"]) == len(row["token_ids"])


def test_labels_of_turns_in_a_list(convert: Convert) -> None:
    turns = [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "b"}]
    row = {"messages": [*ASKED, *turns, turns[0]], "step_labels": [1, -1], "reward": 0.0}
    (made,) = convert([row]).rows
    assert made["step_scores"] == [1.0, -1.0]
    ended = convert([row | {"step_labels": [1]}])
    assert "a list with a label per message of the assistant" in ended.said[0]


@pytest.mark.parametrize(
    "prompt",
    [
        "A talk. User: 2+3?. Assistant:",
        "User: 2+3?\nAssistant: Step by step.\n<think>",
        "### Instruction:\n2+3?\n\n### Response:",
    ],
)
def test_templates_in_words_are_said(convert: Convert, prompt: str) -> None:
    ended = convert([{"input": prompt, "output": text, "score": 1, "step": 1} for text in "ab"])
    assert "look like a chat template that is not known" in ended.said[0]
