"""Reading an answer takes time in proportion to its length, whatever it repeats."""

from __future__ import annotations

import pytest
from tests.work import assert_linear

from stepcredit.rewards import (
    answer_kinds,
    answer_lists,
    boxes,
    commands,
    extract,
    layout,
    normalize,
    numerals,
    signs,
    thinking,
    times_of_day,
    units,
)
from stepcredit.rewards.answer_kinds import answer_letters, answer_option, is_nothing
from stepcredit.rewards.answer_lists import listed_answer
from stepcredit.rewards.boxes import boxed_answer
from stepcredit.rewards.extract import any_answer
from stepcredit.rewards.normalize import normalize_answer
from stepcredit.rewards.thinking import after_thinking
from stepcredit.rewards.times_of_day import time_of_day

PARTS = [
    " ", "1 ", "1,", "0.", r"\overline{3}", r"\ldots ", "^", r"\text{ cm}", "x=1,", "1st", "$",
    r"\mathrm{i}", "answer: ", "A, ", r"\boxed{1}, ", "<think>",
]  # fmt: skip
MODULES = (
    answer_kinds, answer_lists, boxes, commands, extract, layout, normalize, numerals, signs,
    thinking, times_of_day, units,
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_an_answer_is_read_in_linear_time(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (answer_kinds, normalize):
        monkeypatch.setattr(module, "LONGEST", 10**9)

    def read(size: int) -> None:
        text = (part * size)[:size]
        for answer in (f"1{text}", rf"\text{{{text}"):
            listed_answer(normalize_answer(answer))
            commands.unknown_word(answer)
            answer_option(answer)
            answer_letters(answer)
            is_nothing(answer)
            time_of_day(answer)
            any_answer(after_thinking(answer))
            boxed_answer(answer)

    assert_linear(monkeypatch, read, (30, 60), *MODULES)
