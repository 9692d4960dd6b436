"""The test vectors that the estimators are held to, from the folder shared with CI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILES = {"pass.json": 201, "others.json": 94, "new.json": 52}
"""Cases of each file."""


def cases_of(shared_dir: Path, name: str) -> list[dict[str, Any]]:
    """The cases of one file."""
    cases: list[dict[str, Any]] = json.loads((shared_dir / "vectors" / name).read_text())
    return cases
