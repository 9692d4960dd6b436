"""Our grades beside those of lm-evaluation-harness, on the same responses.

    python benchmarks/second_grader.py RESPONSES.jsonl --task gsm8k --python OTHER/bin/python

RESPONSES holds rows with `text` and `answer` (the gold answer): what `stepcredit eval` or
`stepcredit convert` wrote, or `written_answers.py`, whose rows also have the `truth`. OTHER is an
environment with `lm-eval[math]`. Every disagreement is written to `--out`, with the truth where it
is known.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stepcredit.evals.eval_tasks import EVAL_TASKS
from stepcredit.evals.sample_grading import outcome_reward
from stepcredit.rewards.extract import answer_of
from stepcredit.rewards.maths import gold_answer

WORKER = Path(__file__).with_name("lm_eval_grades.py")
Row = dict[str, Any]


def with_hashes(text: str, mark: str) -> str:
    """A response whose last line begins as GSM8K's own solutions do."""
    body, newline, last = text.rstrip().rpartition("\n")
    return f"{body}{newline}####{last.removeprefix(mark)}" if last.startswith(mark) else text


def their_grades(python: str, task: str, rows: Sequence[Row], golds: Sequence[str]) -> list[Row]:
    """lm-eval's grades of each row, by the names of its metrics."""
    asked = [
        json.dumps({"task": task, "text": row["text"], "gold": gold})
        for row, gold in zip(rows, golds, strict=True)
    ]
    done = subprocess.run(
        [python, str(WORKER)], input="\n".join(asked), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{python}: {done.stderr.strip().splitlines()[-1]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def disagreements(
    task: str, rows: Sequence[Row], golds: Sequence[str], ours: Sequence[float], theirs: list[Row]
) -> Iterator[Row]:
    """What the two say of each response on which they differ."""
    for row, gold, own, other in zip(rows, golds, ours, theirs, strict=True):
        for metric, grade in other.items():
            if grade != own:
                yield {
                    "metric": metric,
                    "gold": gold,
                    "answer": answer_of(row["text"], EVAL_TASKS[task].read),
                    "end": row["text"][-120:],
                    "ours": own,
                    "theirs": grade,
                    "truth": row.get("truth"),
                    "kind": row.get("kind"),
                }


def report(rows: Sequence[Row], theirs: list[Row], found: Sequence[Row]) -> Iterator[str]:
    """A line per metric of lm-eval."""
    for metric in theirs[0]:
        own = [each for each in found if each["metric"] == metric]
        known = [each for each in own if each["truth"] is not None]
        agreement = 1 - len(own) / len(rows)
        line = f"{metric}: agreement {agreement:.2%} of {len(rows)}; differ: {len(own)}"
        if known:
            right = sum(each["ours"] == each["truth"] for each in known)
            share = f"{right} ({right / len(known):.1%})"
            line += f", with known truth: {len(known)}, ours right in {share}"
        yield line


def main() -> None:
    """Grade by both, print the agreement, and list the disagreements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("responses", type=Path)
    parser.add_argument("--task", choices=("gsm8k", "math500"), required=True)
    parser.add_argument("--python", required=True, help="of an environment with lm-eval[math]")
    parser.add_argument("--mark", help="replaced by #### where it begins a response's last line")
    parser.add_argument("--out", type=Path, help="file for the disagreements")
    arguments = parser.parse_args()
    rows = [json.loads(line) for line in arguments.responses.read_text().splitlines()]
    if arguments.mark:
        rows = [{**row, "text": with_hashes(row["text"], arguments.mark)} for row in rows]
    golds = [gold_answer(row["answer"], at, "answer") for at, row in enumerate(rows)]
    reward = outcome_reward(EVAL_TASKS[arguments.task])
    ours = [float(y or 0.0) for y in reward([row["text"] for row in rows], rows)]
    theirs = their_grades(arguments.python, arguments.task, rows, golds)
    found = list(disagreements(arguments.task, rows, golds, ours, theirs))
    print(f"{len(rows)} responses, {sum(ours):.0f} right by our grader")
    known = [(own, row["truth"]) for own, row in zip(ours, rows, strict=True) if "truth" in row]
    if known:
        print(f"against the truth: ours {sum(a == b for a, b in known) / len(known):.2%}")
        for metric in theirs[0]:
            pairs = zip(theirs, rows, strict=True)
            right = sum(grades[metric] == row["truth"] for grades, row in pairs if "truth" in row)
            print(f"against the truth: {metric} {right / len(known):.2%}")
    for line in report(rows, theirs, found):
        print(line)
    if arguments.out:
        arguments.out.write_text("".join(f"{json.dumps(each)}\n" for each in found))


if __name__ == "__main__":
    main()
