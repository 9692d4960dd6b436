"""The counter of work: what grows with a text, and what grows with its square."""

from __future__ import annotations

import re

import pytest
from tests.work import Counter


@pytest.mark.parametrize(
    ("pattern", "text", "growth"),
    [
        (r"\s+", " ", 2.0),
        (r"[ab]*?c", "c", 2.0),
        (r"a(?=b)|b", "ab", 2.0),
        (r"\s+\Z", " ", 2.0),
        (r"\s+x", " ", 4.0),
        (r"(?:ab)+c", "ab", 4.0),
        (r"<([^<>]*)>", "<", 2.0),
        (r"<([^>]*)>", "<", 4.0),
    ],
)
def test_growth_is_counted(pattern: str, text: str, growth: float) -> None:
    work = []
    for size in (60, 120):
        counter = Counter()
        counter.scan(re.compile(pattern), text * size, "finditer")
        work.append(counter.steps)
    assert work[1] / work[0] == pytest.approx(growth, rel=0.2)
