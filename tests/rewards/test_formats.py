"""Format templates by hand: what passes, what doesn't, and hostile text."""

from __future__ import annotations

import pytest
from tests.work import assert_linear

from stepcredit.errors import RolloutError, SettingError
from stepcredit.rewards import extract, formats, reward
from stepcredit.rewards.formats import Format

PASSES = {
    "think-answer": [
        "<think>a</think><answer>b</answer>",
        " <think>\na\n</think>\n\n<answer>\nb\n</answer>\n",
        "<think>a < b</think><answer>b > a</answer>",
    ],
    "think-boxed": [
        r"<think>a</think> So \boxed{5}.",
        "<think>a</think>\n\\boxed{\\frac{1}{2}}",
    ],
    "prefilled-think-answer": [
        "a</think><answer>b</answer>",
        "\na\n</think>\n<answer>b</answer>\n",
    ],
    "prefilled-think-boxed": [r"a</think> So \boxed{5}.", "\na\n</think>\n\n\\boxed{5}"],
    "boxed": [r"So \boxed{5}.", r"<think>a</think>\boxed{5}", r"\boxed 5"],
    "qa-tags": [
        "<answer>b</answer>",
        "So <answer>b</answer>\n",
        "a</think><answer>b</answer>",
    ],
}
FAILS = {
    "think-answer": [
        "",
        "<think>a</think>",
        "<answer>b</answer>",
        "<answer>b</answer><think>a</think>",
        "<think>a</think><answer>b</answer>c",
        "a<think>a</think><answer>b</answer>",
        "<think>a</think>c<answer>b</answer>",
        "<think></think><answer>b</answer>",
        "<think>a</think><answer> </answer>",
        "<think>a</think><answer>b</answer><answer>c</answer>",
        "<think>a</think><think>a</think><answer>b</answer>",
        "<think><answer>b</answer></think><answer>b</answer>",
        "<think>a<answer>b</answer></think>",
        "<Think>a</Think><Answer>b</Answer>",
        "<think>a</think><answer>b",
    ],
    "think-boxed": [
        r"\boxed{5}",
        r"<think>\boxed{5}</think> 5",
        r"<think>a</think>\boxed{}",
        r"<think>a</think><think>b</think>\boxed{5}",
        r"<think>a \boxed{5}",
        r"<think> </think>\boxed{5}",
    ],
    "prefilled-think-answer": [
        "<think>a</think><answer>b</answer>",
        "a<answer>b</answer>",
        "</think><answer>b</answer>",
        "a</think>b</think><answer>b</answer>",
    ],
    "prefilled-think-boxed": [
        r"<think>a</think>\boxed{5}",
        r"a \boxed{5}",
        r"\n</think>\boxed{}",
        r"a</think>b</think>\boxed{5}",
    ],
    "boxed": ["5", r"\boxed{}", r"\boxed{ }", r"<think>\boxed{5}</think>", r"\boxed{5"],
    "qa-tags": [
        "b",
        "<answer></answer>",
        "<answer>b</answer> I think",
        "<answer>b</answer><answer>c</answer>",
        "<answer>a</answer></think>b",
    ],
}


@pytest.mark.parametrize("template", PASSES)
def test_what_passes(template: str) -> None:
    layout = Format(template=template)
    assert layout(PASSES[template]) == [1.0] * len(PASSES[template])
    assert layout.gate(PASSES[template]) == [True] * len(PASSES[template])


@pytest.mark.parametrize(("template", "text"), [(t, text) for t in FAILS for text in FAILS[t]])
def test_what_does_not(template: str, text: str) -> None:
    layout = Format(template=template)
    assert (layout([text]), layout.gate([text])) == ([0.0], [False])


@pytest.mark.parametrize("template", PASSES)
@pytest.mark.parametrize("part", ["<think>", "</think>", "<answer>", "</answer>", r"\boxed{", "\n"])
def test_the_work_grows_no_faster_than_a_hostile_text(
    template: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Format(template=template)
    layout([part * 100_000])
    assert_linear(monkeypatch, lambda size: layout([part * size]), (120, 240), formats, extract)


def test_a_pattern_matches_the_whole_text() -> None:
    layout = Format(template=r"^Step 1.*Answer: \d+")
    assert layout(["Step 1\nAnswer: 12", "Step 1\nAnswer: 12.", "So: Step 1 Answer: 1"]) == [
        1,
        0,
        0,
    ]


def test_a_function_gives_shares_and_the_gate_a_limit() -> None:
    layout = Format(template=lambda text: text.count("ok") / 2, passing=0.5)
    texts = ["ok ok", "ok", "no"]
    assert (layout(texts), layout.gate(texts)) == ([1.0, 0.5, 0.0], [True, True, False])


def test_a_function_that_gives_no_number_is_told_by_row() -> None:
    layout = Format(template=lambda text: None if text == "b" else 1)
    with pytest.raises(RolloutError) as caught:
        layout(["a", "b"])
    assert str(caught.value) == "row 1: format: the template gives None, not a finite number"


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("boxd", f"one of {', '.join(formats.TEMPLATES)}, a regular expression that starts with ^, "
                 "or a function, got 'boxd'"),
        ("^(", "a regular expression (missing ), unterminated subpattern at position 1), got '^('"),
        (5, f"one of {', '.join(formats.TEMPLATES)}, a regular expression that starts with ^, "
            "or a function, got 5"),
    ],
)  # fmt: skip
def test_an_unknown_template_is_refused(template: object, expected: str) -> None:
    with pytest.raises(SettingError) as caught:
        reward("format", template=template)
    assert str(caught.value) == f"template: expected {expected}"
