"""What a grade costs: the pool of worker processes beside math-verify in this process.

    python benchmarks/grading.py SOLUTIONS.jsonl

SOLUTIONS holds rows with `solution` and `answer`, such as MATH500. Both sides grade the same pairs
one after the other, warm, and in turns; a run's ratio is of its own two times.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from stepcredit.rewards.boxes import last_box
from stepcredit.rewards.grader import GRADER
from stepcredit.rewards.maths import grade
from stepcredit.rewards.normalize import normalize_answer
from stepcredit.rewards.workers import shared_pool


def seconds(run: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Print milliseconds per grade, medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("solutions", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    rows = [json.loads(line) for line in arguments.solutions.read_text().splitlines()]
    found = [last_box(row["solution"]) or "" for row in rows]
    golds = [row["answer"] for row in rows]
    pairs = list(zip(map(normalize_answer, found), map(normalize_answer, golds), strict=True))
    pool = shared_pool("stepcredit.rewards.grader", 1)
    sides: dict[str, Callable[[], object]] = {
        "math-verify in this process": lambda: [GRADER.verdict(*pair) for pair in pairs],
        "the pool, one worker": lambda: pool.verdicts(pairs, 60.0),
        "grade(): text rules first, one worker": lambda: grade(found, golds, workers=1),
        "grade(): wrong gold answers": lambda: grade(found, golds[1:] + golds[:1], workers=1),
    }
    for run in sides.values():
        run()
    rounds = [{name: seconds(run) for name, run in sides.items()} for _ in range(arguments.rounds)]
    base = next(iter(sides))
    for name in sides:
        cost = statistics.median(each[name] for each in rounds) / len(rows) * 1e3
        ratio = statistics.median(each[name] / each[base] for each in rounds)
        print(f"{name:40} {cost:8.3f} ms per grade   {ratio:5.2f} times math-verify")


if __name__ == "__main__":
    main()
