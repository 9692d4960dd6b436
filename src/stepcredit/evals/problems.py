"""The problems of a benchmark, from the Hugging Face Hub or a local file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import FileError, RolloutError, RowError, SettingError, first_line
from stepcredit.evals.eval_tasks import EvalTask
from stepcredit.evals.passages import context_text, evidence
from stepcredit.requires import require
from stepcredit.rewards.maths import gold_answer

Fields = Mapping[str, Any]
FORMATS = (".jsonl", ".json", ".parquet")
ID_FIELDS = ("id", "_id", "unique_id", "idx")
LARGEST_AIME = 999


@dataclass(frozen=True)
class EvalProblem:
    """One problem of a benchmark.

    Args:
        group: the label of its samples in a rollout file, TASK/PLACE, with the place from 0.
        task: the benchmark.
        prompt: the question, below its passages where it has some.
        facts: what grading needs, under the names that the rewards read: `answer`, and for
            question answering `answer_aliases` and `supporting_facts`; and the data set's own id.
    """

    group: str
    task: EvalTask
    prompt: str
    facts: dict[str, Any] = field(default_factory=dict)


def load_problems(
    task: EvalTask, path: str | Path | None = None, limit: int | None = None
) -> list[EvalProblem]:
    """The problems of a benchmark, checked.

    Args:
        task: the benchmark.
        path: a `.jsonl`, `.json` or `.parquet` file with the fields of the data set; None: the
            data set is read from the Hub, or from the cache of the library `datasets`.
        limit: the first so many problems; None: all.

    Raises:
        RowError: a row of the file lacks a field, or holds something else in it.
        FileError: the file or the data set can't be read.
        MissingExtra: the library that reads it is not installed.

    Example:
        >>> import tempfile
        >>> from stepcredit.evals.eval_tasks import EVAL_TASKS
        >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
        >>> _ = path.write_text('{"question": "2 + 2?", "answer": "2 + 2 = 4 #### 4"}')
        >>> problem = load_problems(EVAL_TASKS["gsm8k"], path)[0]
        >>> problem.group, problem.prompt, problem.facts
        ('gsm8k/0', '2 + 2?', {'answer': '4'})
    """
    source = task.hub if path is None else str(path)
    rows = _hub_rows(task) if path is None else _file_rows(Path(path))
    found = []
    for place, row in enumerate(islice(rows, limit)):
        try:
            found.append(_problem(task, place, row))
        except RolloutError as error:
            raise error.at_line(source, place + 1) from None
    if not found:
        raise FileError(f"{source}: holds no problem")
    return found


def _problem(task: EvalTask, place: int, row: Any) -> EvalProblem:
    if not isinstance(row, Mapping):
        raise RolloutError(f"expected an object, got {str(row)[:60]}")
    question = _text(task, row, task.question)
    passages = context_text(row, task.context[0]) if task.context else ""
    prompt = f"{passages}\n\nQuestion: {question}" if passages else question
    facts = _qa_facts(task, row) if task.is_qa else {"answer": _gold(task, row)}
    own = next((name for name in ID_FIELDS if row.get(name) is not None), None)
    if own is not None:
        facts["problem_id"] = str(row[own])
    return EvalProblem(f"{task.name}/{place}", task, prompt, facts)


def _present(task: EvalTask, row: Fields, names: Sequence[str]) -> str:
    """The first of the names that the row has."""
    for name in names:
        if row.get(name) is not None:
            return name
    reason = f"missing: {task.name} needs it"
    others = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
    raise RolloutError(reason + others, field=names[0])


def _text(task: EvalTask, row: Fields, names: Sequence[str]) -> str:
    name = _present(task, row, names)
    if not isinstance(row[name], str) or not row[name].strip():
        raise RolloutError(f"expected a text, got {str(row[name])[:60]!r}", field=name)
    return str(row[name])


def _gold(task: EvalTask, row: Fields) -> str:
    """The gold answer of a maths problem, as the reward `maths` reads it."""
    name = _present(task, row, task.answer)
    value = row[name]
    if task.gold == "hashes" and "####" not in str(value):
        raise RolloutError(f"expected an answer behind ####, got {str(value)[-60:]!r}", field=name)
    found = gold_answer(value, 0, name)
    if task.gold == "integer" and not (found.isdecimal() and int(found) <= LARGEST_AIME):
        reason = f"expected a whole number from 0 to {LARGEST_AIME}, got {found[:60]!r}"
        raise RolloutError(reason, field=name)
    return found


def _qa_facts(task: EvalTask, row: Fields) -> dict[str, Any]:
    """The gold answer, its aliases and the supporting facts of a question."""
    facts: dict[str, Any] = {"answer": _text(task, row, task.answer)}
    aliases = row.get("answer_aliases")
    if aliases is not None:
        facts["answer_aliases"] = [str(alias) for alias in aliases]
    return {**facts, "supporting_facts": evidence(row, task.context[0])}


def _hub_rows(task: EvalTask) -> Iterator[Fields]:
    require("train", "datasets")
    from datasets import load_dataset

    try:
        yield from load_dataset(task.hub, task.config, split=task.split)
    except Exception as error:  # the library has many, and requests' own
        advice = f"--file {task.name}=PATH reads a local copy"
        raise FileError(f"{task.hub}: {first_line(error)}; {advice}") from None


def _file_rows(path: Path) -> Iterator[Any]:
    if path.suffix not in FORMATS:
        raise SettingError(f"expected a file {', '.join(FORMATS)}", field=str(path))
    with file_errors(str(path)):
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
        elif path.suffix == ".json":
            yield from _json_rows(path)
        else:
            yield from _json_lines(path)


def _parquet_rows(path: Path) -> list[Any]:
    require("parquet", "pyarrow")
    import pyarrow
    from pyarrow import parquet

    try:
        rows: list[Any] = parquet.read_table(path).to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise FileError(f"{path}: {first_line(error)}") from None
    return rows


def _json_rows(path: Path) -> list[Any]:
    rows = _parsed(path.read_bytes(), path, 1)
    if not isinstance(rows, list):
        raise FileError(f"{path}: expected a list of rows; a .jsonl file holds one row per line")
    return rows


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _parsed(line, path, number)


def _parsed(raw: bytes, path: Path, line: int) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        reason = f"is not JSON: {first_line(error)}"
        raise RowError(reason, path=str(path), line=line) from None
