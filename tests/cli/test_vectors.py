"""Every test vector through `stepcredit shape`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, read, write
from tests.vectors import FILES, cases_of


@pytest.mark.parametrize("name", FILES)
def test_shape_gives_the_vectors(name: str, run: Run, shared_dir: Path, tmp_path: Path) -> None:
    cases = cases_of(shared_dir, name)
    assert len(cases) == FILES[name]
    gaps = {case["name"]: gap(case, run, tmp_path) for case in cases}
    assert {name: found for name, found in gaps.items() if not found <= 1e-5} == {}


def gap(case: dict[str, Any], run: Run, folder: Path) -> float:
    """Largest difference between what the command writes and what the vector says."""
    write(folder / "in.jsonl", case["rollouts"])
    settings = [
        part
        for field, value in case["params"].items()
        for part in ("--set", f"{field}={json.dumps(value)}")
    ]
    ended = run("shape", "in.jsonl", "-o", "out.jsonl", "--method", case["method"], *settings)
    assert (ended.code, ended.out) == (0, "")
    rows = read(folder / "out.jsonl")
    assert [{k: v for k, v in r.items() if k != "advantages"} for r in rows] == case["rollouts"]
    gaps = [
        abs(mine - theirs)
        for row, expected in zip(rows, case["advantages"], strict=True)
        for mine, theirs in zip(row["advantages"], expected, strict=True)
    ]
    return math.inf if any(map(math.isnan, gaps)) else max(gaps)
