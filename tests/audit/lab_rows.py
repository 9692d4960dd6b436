"""Rollouts of the embedded task without training: demonstrations with errors, exactly graded."""

from __future__ import annotations

from typing import Any

import numpy as np

from stepcredit.keys import keyed_generator
from stepcredit.lab.arithmetic import check, demonstration, problems
from stepcredit.lab.simulated_prm import Simulated

WRONG_STEPS = 0.25


def lab_rows(
    signal: str, prompts: int = 48, answers: int = 8, seed: int = 0, filler: float = 0.12
) -> list[dict[str, Any]]:
    """Rows as `stepcredit train` saves them; a quarter of the steps is made wrong by a digit."""
    prm, rows = Simulated(signal, seed), []
    for problem in problems(prompts, seed=seed):
        for answer in range(answers):
            generator = keyed_generator(seed, "audit", problem.prompt, str(answer))
            text = with_errors(demonstration(problem.prompt, generator, filler=filler), generator)
            graded = check(problem.prompt, text)
            rows.append(
                {
                    "group": problem.prompt,
                    "prompt": problem.prompt,
                    "text": text,
                    "tokens": list(text),
                    "step_ends": graded.step_ends,
                    "step_scores": prm.scores(problem.prompt, text, graded),
                    "outcome": graded.outcome,
                    "format": graded.format,
                    "format_ok": graded.format_ok,
                    "kinds": graded.kinds,
                }
            )
    return rows


def with_errors(text: str, generator: np.random.Generator) -> str:
    """The chain with some results off by a digit; what follows goes on from the wrong value."""
    lines, value = [], None
    for line in text.splitlines(keepends=True):
        if value is not None:
            line = f"{line[0]}{value}{line[2:]}" if line[0] in "k<" else f"{value}{line[1:]}"
        if "=" in line:
            left, operator, right = int(line[0]), line[1], int(line[2])
            result = {"+": left + right, "-": left - right, "*": left * right}[operator]
            value = (result + (generator.random() < WRONG_STEPS)) % 10
            line = f"{line[:4]}{value}\n"
        lines.append(line)
    return "".join(lines)
