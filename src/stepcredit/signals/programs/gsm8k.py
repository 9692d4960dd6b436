"""GSM8K's `example_model_solutions.jsonl` as rollouts: four models' solutions per question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stepcredit.data.files.jsonl import parse
from stepcredit.data.files.lines import Source
from stepcredit.errors import RolloutError
from stepcredit.signals.programs.checked import Equations
from stepcredit.signals.row_scores import RowReader, members
from stepcredit.signals.splitting import Newline

_ANSWER = re.compile(r"(?:A:|####)\s*(\S.*?)\s*\Z")


def gsm8k_solutions(path: str | Path, tokenizer: Any = None) -> Iterator[dict[str, Any]]:
    """Rollouts of the models' solutions: one group per question, lines as steps.

    Args:
        path: JSON lines with `question`, `ground_truth`, and for each model an object of `solution`
            and `is_correct`.
        tokenizer: the policy's; without one, tokens are words.

    Yields:
        Rows with `step_scores` (1: the line's equations are right, 0: one is wrong, 0.5: it has
        none), `outcome` (`is_correct`), `answer` and `model`.

    Raises:
        RowError: a line that is not of that form.
        FileError: the file can't be read.
    """
    reader = RowReader(tokenizer, Newline())
    with Source(path) as source:
        for position, line, raw in source.held_lines():
            try:
                yield from _group(parse(raw), position, reader)
            except RolloutError as error:
                raise error.at_line(str(path), line) from error.__cause__


def _group(fields: Any, group: int, reader: RowReader) -> Iterator[dict[str, Any]]:
    if not isinstance(fields, dict):
        raise RolloutError("expected an object")
    question, truth = (_text(fields, name) for name in ("question", "ground_truth"))
    models = {name: value for name, value in fields.items() if isinstance(value, dict)}
    if not models:
        raise RolloutError("holds no model's solution: an object of solution and is_correct")
    answer = _ANSWER.search(truth)
    for model, solved in models.items():
        if not isinstance(solved.get("is_correct"), bool):
            raise RolloutError("expected true or false", field=f"{model}.is_correct")
        row = {
            "group": group,
            "model": model,
            "prompt": question,
            "text": _text(solved, "solution", f"{model}.solution"),
        }
        row |= {"answer": answer[1]} if answer else {}
        yield _scored(row, reader) | {"outcome": float(solved["is_correct"])}


def _text(fields: Mapping[str, Any], name: str, field: str | None = None) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        reason = "missing" if value is None else "expected a string"
        raise RolloutError(reason, field=field or name)
    return value


def _scored(row: dict[str, Any], reader: RowReader) -> dict[str, Any]:
    row = reader.with_tokens(row)
    response = reader.response(row)
    return row | members(row, response, Equations().scores([response])[0], "steps")
