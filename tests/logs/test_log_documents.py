"""The documents name every format, and quote warnings as they are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stepcredit.logs.log_formats import GSM8K, LOG_FORMATS

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("src/stepcredit/logs", "src/stepcredit/data/files")


def test_every_format_is_in_the_table() -> None:
    table = [line for line in (ROOT / "docs/logs.md").read_text().splitlines() if line[:1] == "|"]
    named = {found[1] for line in table if (found := re.match(r"\| `([a-z0-9-]+)` \|", line))}
    assert named == {*LOG_FORMATS, GSM8K}


def quoted() -> list[str]:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    section = text.partition("## A command warns")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith('| "')]
    return [phrase for cell in cells for phrase in re.findall(r'"([^"]+)"', cell)]


@pytest.mark.parametrize("phrase", quoted())
def test_a_warning_is_quoted_as_it_is_printed(phrase: str) -> None:
    files = [path for place in PLACES for path in (ROOT / place).rglob("*.py")]
    code = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text() for path in files))
    pieces = [piece.strip() for piece in re.split(r"\.\.\.|\(N rows", phrase)]
    assert all(piece in code for piece in pieces if piece not in ("", ")")), phrase
