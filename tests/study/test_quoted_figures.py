"""The figures of the study that other pages quote are those of its own page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERVAL = re.compile(r"-?\d\.\d{3} to -?\d\.\d{3}")


def intervals(text: str) -> list[str]:
    """Every interval of three decimals, without plus signs, with a plain minus."""
    return INTERVAL.findall(text.replace("\N{MINUS SIGN}", "-").replace("+", ""))


def part(page: str, heading: str) -> str:
    """The text below a heading, as far as the next."""
    return (ROOT / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize(
    ("page", "heading", "least"),
    [("README.md", "Which method should I use?", 4), ("docs/agents.md", "A trained agent", 10)],
)
def test_quoted_intervals_stand_in_the_evidence(page: str, heading: str, least: int) -> None:
    quoted = intervals(part(page, heading))
    assert len(quoted) >= least
    missing = set(quoted) - set(intervals((ROOT / "docs/evidence.md").read_text()))
    assert not missing


def test_the_quoted_p_values_are_corrected_for_the_present_number_of_claims() -> None:
    """Holm's correction grows with the claims that have been run."""
    quoted = re.findall(r"p = (0\.\d{3})", part("README.md", "Which method should I use?"))
    shown = re.findall(r"Holm p (0\.\d{3})", (ROOT / "docs/evidence.md").read_text())
    assert quoted
    assert set(quoted) <= set(shown)


def test_the_quoted_counts_of_claims_are_those_of_the_page() -> None:
    text = " ".join(part("README.md", "Which method should I use?").split())
    counted = r"Of (\d+) claims, (\d+) are held, (\d+) are not held and (\d+) are undecided"
    quoted = re.search(counted, text)
    assert quoted
    verdicts = re.findall(
        r"\*\*(held|not held|undecided|not run yet)\*\*(?: \(a tie\))?(?: \(interim[^|]*\))? \|$",
        (ROOT / "docs/evidence.md").read_text(),
        re.MULTILINE,
    )
    counts = [verdicts.count(word) for word in ("held", "not held", "undecided")]
    assert list(map(int, quoted.groups())) == [len(verdicts), *counts]
