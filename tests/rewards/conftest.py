"""Tables of answers, and the rows of the maths sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent


def table(name: str) -> list[tuple[str, str]]:
    """The pairs of gold answer and answer of a table beside this file."""
    lines = (FOLDER / name).read_text().splitlines()
    rows = [line.split(" || ", 1) for line in lines if line and not line.startswith("# ")]
    return [(gold, answer) for gold, answer in rows]


@pytest.fixture(scope="session")
def maths_rows(shared_dir: Path) -> Any:
    """Reads the rows of a maths set."""

    def read(name: str) -> list[dict[str, Any]]:
        lines = (shared_dir / "data" / "math" / f"{name}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return read


@pytest.fixture(scope="session")
def qa_rows(shared_dir: Path) -> Any:
    """Reads the rows of a QA set."""

    def read(name: str) -> list[dict[str, Any]]:
        return json.loads((shared_dir / "data" / "qa" / f"{name}.json").read_text())

    return read
