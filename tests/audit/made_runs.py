"""Small runs as trainers leave them, for the tests of the audit over steps."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.audit.lab_rows import lab_rows

Row = dict[str, Any]


def step_rows(step: int, policy: str = "pass", seed: int | None = None) -> list[Row]:
    """One step's rows as `stepcredit train` saves them: 8 prompts with 2 answers each."""
    rows = lab_rows("noisy", prompts=8, answers=2, seed=step if seed is None else seed)
    return [
        {**row, "group": f"{policy}-{step}-{at // 2}", "method": policy, "update": step}
        for at, row in enumerate(rows)
    ]


def verl_rows(at: int, **fields: Any) -> list[Row]:
    """One step's rows as verl dumps them: 2 prompts with 3 answers each."""
    return [
        {
            "input": f"What is {at} + {prompt}?",
            "output": f"It is {at + prompt + answer % 2}. So {at + prompt + answer % 2}.",
            "score": float(answer % 2 == 0),
            "uid": f"{prompt}_{answer}_0",
            **fields,
        }
        for prompt in range(2)
        for answer in range(3)
    ]


def write_lines(path: Path, rows: Iterable[Row], rest: str = "") -> Path:
    """A file of JSON Lines, with some text behind them; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + rest)
    return path


def lab_run(
    folder: Path, steps: Iterable[int] = (1, 20, 40), policies: Iterable[str] = ("pass",)
) -> Path:
    """The folder of a run of `stepcredit train`."""
    rows = [row for policy in policies for step in steps for row in step_rows(step, policy)]
    write_lines(folder / "rollouts.jsonl", rows)
    write_lines(folder / "metrics.jsonl", [{"method": "pass", "update": 1, "reward": 0.5}])
    return folder
