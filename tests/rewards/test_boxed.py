"""Where the answer stands in a response: by hand, by property, and against hostile text."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.work import assert_linear

from stepcredit.rewards import extract
from stepcredit.rewards.extract import after_thinking, answer_of, last_box, last_line, last_tag

CASES = {
    r"\boxed{5}": "5",
    r"\boxed{\frac{1}{2}}": r"\frac{1}{2}",
    r"\boxed{1} then \boxed{2}": "2",
    r"\boxed{1} then \boxed{2": "1",
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
    assert_linear(monkeypatch, lambda size: read(made(size)), (240, 480), extract)


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
