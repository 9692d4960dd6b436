"""Where the answer stands in a response: by hand, by property, and against hostile text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.work import assert_linear

from stepcredit.rewards import boxes, extract, thinking
from stepcredit.rewards.boxes import boxed_answer, last_box
from stepcredit.rewards.extract import answer_of, last_line, last_tag
from stepcredit.rewards.thinking import after_thinking

CASES = {
    r"\boxed{5}": "5",
    r"\boxed{\frac{1}{2}}": r"\frac{1}{2}",
    r"\boxed{1} then \boxed{2}": "2",
    r"\boxed{1} then \boxed{2": None,
    r"\boxed{1} then \boxed": None,
    r"\boxed{\boxed{3}}": r"\boxed{3}",
    r"\boxed{ \boxed{4}": "4",
    r"\boxed {6}": "6",
    "\\boxed\n{6}": "6",
    r"\fbox{7}": "7",
    r"\framebox{204}": "204",
    r"\framebox[2cm]{204}": "204",
    r"\boxed 5.": "5",
    r"\boxed 5, and so on": "5",
    r"\boxed 1,234 is it": "1,234",
    r"\boxed\frac{1}{2}": r"\frac{1}{2}",
    r"\boxed x": "x",
    r"\boxed{\{1, 2\}}": r"\{1, 2\}",
    r"\boxed{\left\{1\right\}}": r"\left\{1\right\}",
    r"\boxed{}": "",
    r"\\boxed{8}": "8",
    r"a \\ \boxed{9} \\": "9",
    r"\boxedminipage{9}": None,
    r"boxed{9}": None,
    "9": None,
    "": None,
    "}}}{{{": None,
    r"\boxed": None,
    "\\boxed{5\n}": "5\n",
    r"\{ \boxed{5} \}": "5",
    r"} \boxed{5}": "5",
}


@pytest.mark.parametrize("text", CASES)
def test_last_box(text: str) -> None:
    assert last_box(text) == CASES[text]


CONTENT = st.recursive(
    st.text("ab 1+\\,.", max_size=5).filter(lambda text: not text.endswith("\\")),
    lambda inner: st.builds("{{{}}}".format, inner) | st.builds("{}{}".format, inner, inner),
    max_leaves=8,
)


@given(CONTENT, st.text("ab {1}", max_size=20), st.text("ab 1.$", max_size=20))
def test_the_last_box_is_found_whatever_stands_around_it(
    content: str, before: str, after: str
) -> None:
    assert last_box(before + r" \boxed{1} \boxed{" + content + "}" + after) == content


@pytest.mark.parametrize(
    "made",
    [
        lambda n: "{" * n,
        lambda n: "}" * n,
        lambda n: r"\boxed{" * n,
        lambda n: r"\boxed{" * (n // 2) + "}" * (n // 2),
        lambda n: r"\boxed " * n,
        lambda n: "\\" * n,
        lambda n: r"\framebox[" * (n // 2),
        lambda n: r"\boxed{" + "9" * n,
        lambda n: "\\boxed" + " " * n,
        lambda n: ("\\boxed" + " " * 30) * (n // 30),
    ],
    ids=lambda made: repr(made(60)[:12]),
)
def test_the_work_grows_no_faster_than_a_hostile_text(
    made: Callable[[int], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(text: str) -> None:
        last_box(text)
        last_tag(text)
        after_thinking(text)

    read(made(100_000))
    assert_linear(monkeypatch, lambda size: read(made(size)), (240, 480), boxes, extract, thinking)


def test_tags_lines_and_thinking() -> None:
    assert last_tag("<answer>a</answer><answer> b </answer>") == "b"
    assert last_tag("<answer>a</answer><answer>b") == "a"
    assert last_tag("</answer> b <answer>") is None
    assert last_tag("<answer><answer>b</answer></answer>") == "b</answer>"
    assert last_line("#### 5\n#### 6 \nbye") == "6"
    assert last_line("6") is None
    assert after_thinking("a</think>b</think>c") == "c"
    assert after_thinking("<think>c") == ""
    assert answer_of(r"<think>\boxed{5}</think> done", "boxed") is None
    assert answer_of(r"<think>\boxed{5}", "boxed") is None
    assert answer_of(" 5\n", "whole") == "5"


JOINED = {
    r"$n=\boxed{1}$ and $n=\boxed{-2}$": "1, -2",
    r"\boxed{1}, \boxed{2} or \boxed{3}.": "1, 2, 3",
    r"$\boxed{2}$, $\boxed{2}$": "2",
    r"x = \boxed{1},\ny = \boxed{2}": "1, 2",
    r"The smaller is \boxed{1} and the larger is \boxed{2}.": "1, 2",
    r"\boxed{3}, so \boxed{4}": "4",
    r"First \boxed{3}. Then \boxed{4} and \boxed{5}": "4, 5",
    r"\boxed{6*7} = \boxed{42}": "42",
    r"\boxed{1}\n\n\boxed{2}": "2",
    r"\boxed{1} and \boxed{2": None,
    r"\boxed{1} and \boxed{": None,
    r"\boxed{41}, no, \boxed{42}": "42",
}


@pytest.mark.parametrize("text", JOINED)
def test_boxes_that_are_one_answer(text: str) -> None:
    assert boxed_answer(text.replace(r"\n", "\n")) == JOINED[text]


THOUGHTS = {
    "<|begin_of_thought|>5<|end_of_thought|>6": "6",
    "<thinking>5</thinking>6": "6",
    "[THINK]5[/THINK]6": "6",
    "<THINK>5</THINK>6": "6",
    "<|begin_of_thought|>5": "",
    "<thinking>5": "",
    "[THINK]5": "",
    "4<think>5": "",
    "<think>4</think>5<think>6": "",
    "<|channel|>analysis<|message|>5": "",
    "<|channel|>analysis<|message|>5<|end|><|start|>assistant<|channel|>final<|message|>6": "6",
    "<|channel|>final<|message|>6<|return|>": "6",
    "analysisWe try 5.assistantfinal6": "6",
    "analysisWe try 5.": "",
    "analysis of 5": "analysis of 5",
    "think 5": "think 5",
}


@pytest.mark.parametrize("text", THOUGHTS)
def test_thinking_in_every_mark(text: str) -> None:
    assert after_thinking(text) == THOUGHTS[text]


LINES = {
    ("answer-line", "so\nAnswer: 34"): "34",
    ("answer-line", "**Answer:** $34$"): "$34$",
    ("answer-line", "Answer:\n34\n"): "34",
    ("answer-line", "Answer: 3\nAnswer: 34."): "34",
    ("answer-line", "the answer is 34"): None,
    ("minerva", "Final Answer: The final answer is $34$. I hope it is correct."): "$34$",
    ("minerva", "Answer: 34"): None,
    ("number", "She has 3 boxes of 4, so 12 eggs."): "12",
    ("number", "Answer: she pays $1,250.50, the rest later."): "1,250.50",
    ("number", "2 + 2 = 4\n#### 4\nNext question: 7"): "4",
    ("number", r"\boxed{5} of 6"): "5",
    ("number", r"5 or \boxed{6"): None,
    ("number", "It fell by -3, that is all."): "-3",
    ("number", "I do not know."): None,
    ("any", r"Answer: 33, \boxed{34}"): "34",
    ("any", r"Answer: 33, \boxed{34"): None,
    ("any", "Final Answer: The final answer is 34. I hope it is correct."): "34",
    ("any", "<think>Answer: 34</think>"): None,
    ("boxed", "Answer: 34"): None,
}


@pytest.mark.parametrize(("read", "text"), LINES)
def test_the_lines_that_hold_an_answer(read: str, text: str) -> None:
    assert answer_of(text, read) == LINES[read, text]
