"""Grades responses by lm-evaluation-harness, in an environment that has it (`lm-eval[math]`).

    python benchmarks/lm_eval_grades.py < REQUESTS > GRADES

`second_grader.py` runs it. Each line in is an object of `task`, `text` and `gold`; each line out
has 1 or 0 for every way in which lm-eval grades that task.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter
from lm_eval.tasks.minerva_math import utils as minerva

TASKS = Path(lm_eval.__file__).parent / "tasks"
Grades = dict[str, int]


def gsm8k_grader() -> Callable[[str, str], Grades]:
    """lm-eval's `gsm8k`: its filters and its exact match, as its file declares them."""
    declared = yaml.safe_load((TASKS / "gsm8k" / "gsm8k.yaml").read_text())
    metric = declared["metric_list"][0]
    names = ("regexes_to_ignore", "ignore_case", "ignore_punctuation")
    settings = {name: metric[name] for name in names}
    filters = {}
    for each in declared["filter_list"]:
        fields = {k: v for k, v in each["filter"][0].items() if k != "function"}
        filters[each["name"]] = RegexFilter(**fields)

    def grade(text: str, gold: str) -> Grades:
        found = {}
        for name, extract in filters.items():
            answer = extract.apply([[text]], [{}])[0][0]
            match = exact_match_hf_evaluate([answer], [f"#### {gold}"], **settings)
            found[name] = int(match["exact_match"])
        return found

    return grade


def math500_grader() -> Callable[[str, str], Grades]:
    """lm-eval's `minerva_math500`: Minerva's rules with sympy, and math-verify."""

    def grade(text: str, gold: str) -> Grades:
        box = rf"\boxed{{{gold}}}"
        answer = minerva.normalize_final_answer(gold)
        found: Grades = minerva.process_results({"answer": answer, "solution": box}, [text])
        return {name: int(value) for name, value in found.items()}

    return grade


GRADERS = {"gsm8k": gsm8k_grader, "math500": math500_grader}


def main() -> None:
    """Grade standard input, line by line."""
    logging.disable(logging.CRITICAL)
    graders: dict[str, Any] = {}
    for line in sys.stdin:
        row = json.loads(line)
        if row["task"] not in graders:
            graders[row["task"]] = GRADERS[row["task"]]()
        print(json.dumps(graders[row["task"]](row["text"], row["gold"])), flush=True)


if __name__ == "__main__":
    main()
