"""Questions of prompts in the chat templates that TRL ships, and tools' answers in responses."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path

import pytest
import trl
from tests.prm.vocabularies import qwen
from tests.work import assert_linear

from stepcredit.errors import SettingError
from stepcredit.logs import chat_marks, tool_marks
from stepcredit.logs.chat_marks import question_in
from stepcredit.logs.prompt_tokens import prompt_token_ids, question_by_template
from stepcredit.logs.tool_marks import ToolMarks

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
TEXT_TEMPLATES = [
    "cohere2",
    "deepseek_r1_distill",
    "deepseekv3",
    "gemma",
    "gemma4",
    "glm4moe",
    "gptoss",
    "lfm2",
    "llama3_1",
    "llama3_2",
    "nemotron_3_nano",
    "phi3",
    "phi3_5",
    "qwen2_5",
    "qwen3",
    "qwen3_5_think",
    "qwen3_instruct_2507",
]
SPECIAL = re.compile(
    r"<\|im_(?:start|end)\|>|<\|(?:start|end)_header_id\|>|<\|eot_id\|>|<\|begin_of_text\|>|"
    r"<(?:start|end)_of_turn>|<bos>"
)
QUESTION = "What is 3+4?\n\nA user says:\n[1] a < b"
CONVERSATIONS = {
    "one turn": [{"role": "user", "content": QUESTION}],
    "several turns": [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": QUESTION},
    ],
    "a system's": [
        {"role": "system", "content": "Be brief.\nBe right."},
        {"role": "user", "content": QUESTION},
    ],
}


def rendered(template: str, conversation: str) -> str:
    tokenizer = deepcopy(qwen())
    tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    turns = CONVERSATIONS[conversation]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("template", TEXT_TEMPLATES)
def test_the_question_of_a_prompt_in_a_template(template: str, conversation: str) -> None:
    if (template, conversation) == ("gemma", "a system's"):
        pytest.skip("this template takes no system message")
    prompt = rendered(template, conversation)
    found = question_in(prompt)
    assert (found.text, found.is_unknown, found.is_doubtful) == (QUESTION, False, False)
    stripped = SPECIAL.sub("", prompt)
    if stripped != prompt:
        found = question_in(stripped)
        assert (found.text, found.is_unknown, found.is_doubtful) == (QUESTION, False, False)


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2+3? [/INST]", "2+3?"),
        ("<s>[INST] 1+1? [/INST] 2</s>[INST] 2+3? [/INST]", "2+3?"),
        ("<|user|>\n2+3?</s>\n<|assistant|>\n", "2+3?"),
        ("system\nBe brief.\nuser\n2+3?\nassistant\n<think>\n", "2+3?"),
        ("user\n2+3?\nassistant\n<think>\n\n</think>\n\n", "2+3?"),
        ("user\n2+3?\nmodel\n", "2+3?"),
        ("user\n\n2+3?assistant\n\n", "2+3?"),
        ("user\n1+1?\nassistant\n2\nuser\n2+3?\nassistant\n", "2+3?"),
        (
            "<|im_start|>user\n2+3?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n<|im_end|>\n"
            "<|im_start|>user\n<tool_response>\n5\n</tool_response><|im_end|>\n"
            "<|im_start|>assistant\n",
            "2+3?",
        ),
    ],
)
def test_questions_in_other_marks(prompt: str, question: str) -> None:
    assert question_in(prompt).text == question


def test_a_text_that_is_no_template_is_its_own_question() -> None:
    for prompt in ("2+3?", "Question: 2+3?\nAnswer:", "a user\nasks this", "user\n2+3?"):
        found = question_in(prompt)
        assert (found.text, found.family, found.is_unknown) == (prompt, None, False)


def test_a_template_that_is_not_known_is_said() -> None:
    for prompt in ("<|human|>2+3?<|bot|>", "Q: 2+3?\nAssistant:", "<｜ask｜>2+3?"):
        assert question_in(prompt).is_unknown


def test_a_line_like_a_turns_head_is_said() -> None:
    found = question_in("system\nBe brief.\nuser\nWho is this:\nuser\n?\nassistant\n")
    assert (found.text, found.is_doubtful) == ("Who is this:\nuser\n?", True)


@pytest.mark.parametrize("template", ["qwen2_5", "llama3_1"])
def test_the_tokens_of_a_prompt_that_was_logged_without_special_tokens(template: str) -> None:
    tokenizer = deepcopy(qwen())
    tokenizer.chat_template = (TEMPLATES / f"{template}.jinja").read_text()
    turns = CONVERSATIONS["a system's"]
    options = {"add_generation_prompt": True, "return_dict": True}
    ids = tokenizer.apply_chat_template(turns, **options)["input_ids"]
    assert prompt_token_ids(turns, tokenizer) == ids
    assert prompt_token_ids(tokenizer.decode(ids), tokenizer) == ids
    if template == "qwen2_5":  # its marks are special tokens of this vocabulary
        logged = tokenizer.decode(ids, skip_special_tokens=True)
        assert logged.startswith("system\nBe brief.")
        assert prompt_token_ids(logged, tokenizer) == ids
        assert prompt_token_ids(logged.replace("Be brief.", "Be  brief.\n"), tokenizer) != ids
    assert prompt_token_ids("2+3?", tokenizer) is None


OWN = (
    "{% for turn in messages %}<extra_0>{{ turn['role'] }}: {{ turn['content'] }}~{% endfor %}"
    "{% if add_generation_prompt %}<extra_0>bot: {% endif %}"
)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_the_tokenizer_shows_the_question_of_a_template_that_is_not_known(
    conversation: str,
) -> None:
    tokenizer = deepcopy(qwen())
    tokenizer.chat_template = OWN
    turns = CONVERSATIONS[conversation]
    options = {"add_generation_prompt": True, "return_dict": True}
    ids = tokenizer.apply_chat_template(turns, **options)["input_ids"]
    for prompt in (tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)):
        assert question_in(prompt).family is None
        assert question_by_template(prompt, tokenizer) == QUESTION
    assert question_by_template("2+3?", tokenizer) is None


CALL = '<tool_call>\n{"name": "add"}\n</tool_call>'
TOOLS = {
    "ChatML": (
        f"a\n{CALL}<|im_end|>",
        "\n<|im_start|>user\n<tool_response>\n7\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "ChatML without special tokens": (
        f"a\n{CALL}",
        "\nuser\n<tool_response>\n7\n</tool_response>\n<tool_response>\n8\n</tool_response>\n"
        "assistant\n",
    ),
    "a role of its own": (f"a\n{CALL}", "\ntool\n7\nassistant\n"),
    "Llama 3": (
        "a<|eom_id|>",
        "<|start_header_id|>ipython<|end_header_id|>\n\n7<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "Llama 3 without special tokens": ("a", 'ipython\n\n{"output": 7}assistant\n\n'),
    "Gemma": ("a<end_of_turn>", "\n<start_of_turn>user\n7<end_of_turn>\n<start_of_turn>model\n"),
    "Mistral": ("[TOOL_CALLS] [{}]", "[TOOL_RESULTS] 7[/TOOL_RESULTS]"),
    "DeepSeek": ("a", "<｜tool▁outputs▁begin｜>7<｜tool▁outputs▁end｜>"),
    "GLM": ("a", "<|observation|>\n7<|assistant|>\n"),
    "harmony": ("a", "<|start|>functions.add to=assistant<|message|>7<|end|><|start|>assistant"),
    "one turn": (f"a {CALL}", "\n<tool_response>\n7\n</tool_response>\n"),
    "Search-R1": ("a<search>x</search>", "\n\n<information>7</information>\n\n"),
}


@pytest.mark.parametrize("name", TOOLS)
def test_a_tools_answer_is_cut_out(name: str) -> None:
    own, tool = TOOLS[name]
    marks = ToolMarks()
    assert marks.parts(f"{own}{tool}So 7.") == [(own, True), (tool, False), ("So 7.", True)]
    assert marks.parts(f"{own}{tool}b{tool}c") == [
        (own, True),
        (tool, False),
        ("b", True),
        (tool, False),
        ("c", True),
    ] or name in ("one turn", "Search-R1")
    assert ToolMarks(["none"]).parts(f"{own}{tool}c") == [(f"{own}{tool}c", True)]


def test_what_a_policy_writes_itself_is_its_own() -> None:
    marks = ToolMarks()
    for text in (
        "I ask the user\nand the tool\n",
        "a\nuser\nb\nassistant\nc",
        "<information>a</information>",
        "the ipython shell",
        "<tool_response>7</tool_response>",
    ):
        assert marks.parts(text) == [(text, True)]
    assert marks.possible_mark("a\nuser\nb") == "user"
    assert marks.possible_mark("<result>5</result>") == "<result>"
    assert marks.possible_mark("the result is 5") is None


def test_marks_that_are_given() -> None:
    marks = ToolMarks(["<result>...</result>"])
    parts = [("a", True), ("<result>\n5</result>", False), ("b", True)]
    assert marks.parts("a<result>\n5</result>b") == parts
    for wrong in ("<result>", "...</result>", "<result>..."):
        with pytest.raises(SettingError) as raised:
            ToolMarks([wrong])
        assert str(raised.value) == f"--tool-marks {wrong}: expected OPEN...CLOSE, or none"


HOSTILE = {
    "openings": "\ntool\nipython\n\n[TOOL_RESULTS]</search><information><|im_start|>tool\n",
    "answers": "\nuser\n<tool_response></tool_response>",
    "spaces": "</tool_call>   \n",
    "heads": "user\n\nassistant\n\n<|start|>user<<SYS>>[INST]",
    "line ends": "assistant   \n\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_the_time_is_proportional_to_the_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    piece = HOSTILE[name]
    assert_linear(monkeypatch, lambda n: ToolMarks().parts(piece * n), (40, 80), tool_marks)
    assert_linear(monkeypatch, lambda n: question_in(piece * n), (40, 80), chat_marks)
