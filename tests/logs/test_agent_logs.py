"""Conversations in logs: an agent's own words, its tools' answers, and labels of its turns."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.logs.conftest import Convert
from tests.logs.logged_rows import as_asked, as_said, verl
from tests.prm.vocabularies import qwen

AGENT: list[dict[str, Any]] = [
    {
        "role": "assistant",
        "content": "I add.",
        "reasoning_content": "3 and 4",
        "tool_calls": [{"function": {"name": "add", "arguments": '{"a": "three"}'}}],
    },
    {"role": "tool", "content": "7"},
    {"role": "assistant", "content": "It is 7."},
]


def test_an_agents_own_words_are_kept(convert: Convert, tmp_path: Path) -> None:
    row = {"prompt": as_asked("3+4?"), "completion": AGENT, "example_id": 1, "reward": 1.0}
    ended = convert([row])
    text = (
        "<think>\n3 and 4\n</think>\n\nI add.\n"
        '<tool_call>\n{"name": "add", "arguments": {"a": "three"}}\n</tool_call>'
    )
    tool = "\n<tool_response>\n7\n</tool_response>\n"
    assert ended.rows[0]["text"] == f"{text}{tool}It is 7."
    own = "".join(
        token
        for token, mine in zip(ended.rows[0]["tokens"], ended.rows[0]["loss_mask"], strict=True)
        if mine
    )
    assert own == f"{text}It is 7."
    assert "written as <tool_call> and <think>" in ended.said[0]


def test_the_tokenizers_template_renders_an_agents_turns(convert: Convert, tmp_path: Path) -> None:
    import trl

    folder = Path(trl.__file__).parent / "chat_templates"
    tokenizer = deepcopy(qwen())
    tokenizer.chat_template = (folder / "qwen2_5.jinja").read_text()
    tokenizer.save_pretrained(tmp_path / "policy")
    turns = [{**AGENT[0], "reasoning_content": None}, *AGENT[1:]]
    row = {"prompt": as_asked("3+4?"), "completion": turns, "example_id": 1, "reward": 1.0}
    (made,) = convert([row], "--tokenizer", tmp_path / "policy").rows
    call = 'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": "three"}}\n</tool_call>'
    tool = (
        "<|im_start|>user\n<tool_response>\n7\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert made["text"] == f"{call}<|im_end|>\n{tool}It is 7."
    assert "".join(made["tokens"]) == made["text"]
    assert tokenizer.decode(made["token_ids"]) == made["text"]
    options = {"add_generation_prompt": True, "return_dict": True}
    assert (
        made["prompt_ids"]
        == tokenizer.apply_chat_template(as_asked("3+4?"), **options)["input_ids"]
    )
    ended = convert([row | {"completion": AGENT}], "--tokenizer", tmp_path / "policy")
    assert "it leaves out words of the policy" in ended.said[0]
    assert ended.rows[0]["text"].startswith("<think>\n3 and 4\n</think>")


def test_labels_of_turns_are_step_scores(convert: Convert) -> None:
    row = {"messages": as_asked("3+4?") + AGENT, "step_labels": {"1": 1, "3": -1}}
    (made,) = convert([row]).rows
    assert made["step_scores"] == [1.0, -1.0]
    first, last = made["step_ends"]
    assert "".join(made["tokens"][: first + 1]).endswith("</tool_call>")
    assert last == len(made["tokens"]) - 1
    ended = convert([row | {"step_labels": {"1": 1}}])
    assert "step_scores" not in ended.rows[0]
    assert "labels of some of the policy's turns only" in "\n".join(ended.said)


def test_other_fields_of_messages_are_said(convert: Convert) -> None:
    turn = {"role": "assistant", "content": "7", "tool_plan": "I add"}
    ended = convert([{"messages": [*as_asked("3+4?"), turn], "reward": 1.0}])
    assert "with a field 'tool_plan' of a message, which is left out" in ended.said[0]
    turn = {"role": "assistant", "content": [{"type": "text", "text": "7"}, {"type": "audio"}]}
    ended = convert([{"messages": [*as_asked("3+4?"), turn], "reward": 1.0}])
    assert "with a content part 'audio', which is left out" in ended.said[0]


def test_a_users_turns_among_the_policys_are_said(convert: Convert) -> None:
    turns = as_asked("a?") + as_said("b") + as_asked("c?") + as_said("d")
    ended = convert([{"messages": turns, "reward": 1.0}])
    assert ended.rows[0]["text"] == "b\nc?\nd"
    assert ended.rows[0]["loss_mask"] == [1, 0, 0, 1]
    assert any("with user messages among the assistant's" in line for line in ended.said)
    assert any("joined with line breaks" in line for line in ended.said)


def test_a_mark_that_may_be_a_tools_is_said_once(convert: Convert) -> None:
    rows = [verl("q", f"a<result>{at}</result>b", at) for at in range(2)]
    ended = convert(rows)
    assert "loss_mask" not in ended.rows[0]
    assert [line for line in ended.said if "'<result>'" in line] == ended.said[:1]
    ended = convert(rows, "--tool-marks", "<result>...</result>")
    assert ended.rows[0]["loss_mask"] == [1, 0, 1]
    assert convert(rows, "--tool-marks", "none").said == []


def test_messages_and_golds_that_a_table_holds_as_text(convert: Convert) -> None:
    rows = [
        {
            "step": 1,
            "prompt": str(as_asked("3+4?")),
            "completion": json.dumps(as_said(text)),
            "right": score,
            "advantage": 0.0,
        }
        for text, score in (("7", 1.0), ("8", 0.0))
    ]
    found = [(row["prompt"], row["text"]) for row in convert(rows).rows]
    assert found == [("3+4?", "7"), ("3+4?", "8")]
    for gold in ("{'target': ['Paris']}", '{"target": ["Paris"]}', {"ground_truth": "Paris"}):
        (row,) = convert([verl("q", "a", 1.0, gts=gold)]).rows
        assert row["answer"] in ("Paris", ["Paris"])
    (row,) = convert([verl("q", "a", 1.0, gts="{2, 3}")]).rows
    assert row["answer"] == "{2, 3}"
