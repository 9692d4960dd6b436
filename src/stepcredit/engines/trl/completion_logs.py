"""Converts TRL's logged completions (`log_completions=True`) to rollouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from stepcredit.data.files.jsonl import parse
from stepcredit.data.files.parquet import as_lines
from stepcredit.engines.logged_rows import (
    LoggedResponse,
    RewardColumns,
    extra_columns,
    grouped_rows,
    log_files,
    logged_rewards,
)
from stepcredit.errors import RowError, SettingError

_OWN = {"step", "prompt", "completion", "advantage"}


def read_completion_logs(
    path: str | Path, columns: RewardColumns | None = None, tokenizer: Any = None
) -> Iterator[dict[str, Any]]:
    """Rows of rollouts from the tables that `GRPOTrainer` logs, in their order.

    A table that repeats the one before it is left out: TRL logs a generation again at each of its
    optimizer steps. The prompt of a conversation is its last user turn; tokens of tools have
    `loss_mask` 0.

    The responses of an evaluation replace some of training's in a table, which does not say which
    they are. A table that shows signs of this is refused: responses appended to the table before,
    or a first or last group that is smaller than another.

    Args:
        path: a `completions_*.parquet` file, or the folder of them.
        columns: the reward columns; without `outcome` the only column of numbers is the outcome.
        tokenizer: the policy's; without one, tokens are words.

    Raises:
        FileError: a file that can't be read.
        RowError: a row without prompt or completion, or a table with an evaluation's responses.
        SettingError: no such column, or several that might be the outcome.
    """
    columns = columns or RewardColumns()
    return grouped_rows(_logged(path, columns), columns, tokenizer)


def _logged(path: str | Path, columns: RewardColumns) -> Iterator[LoggedResponse]:
    before: list[Any] = []
    for file in log_files(path, "completions_*.parquet"):
        with as_lines(str(file)) as lines:
            rows = [parse(line) for line in lines]
        table = [[row.get(name) for name in ("prompt", "completion", "advantage")] for row in rows]
        if table != before:
            _check_appended(before, table, str(file))
            if columns.group_size is None:
                _check_sizes([repr(prompt) for prompt, *_ in table], str(file))
            outcome = columns.outcome or _only_reward(rows, str(file))
            read = replace(columns, outcome=outcome)
            for line, row in enumerate(rows, start=1):
                yield _response(row, str(file), line, read)
        before = table


def _check_appended(before: list[Any], table: list[Any], path: str) -> None:
    """Refuse a table that continues the one before: a generation of training fills a whole table.

    Equal responses to one prompt are no sign of it, as a policy may write the same again.

    Raises:
        RowError: names the line of the first response that was appended.
    """
    for kept in range(len(table) - 1, 0, -1):
        is_one = all(row[0] == table[0][0] for row in table[: kept + 1])
        if table[:kept] == before[-kept:] and not is_one:
            reason = f"an evaluation's, after {kept} of the table before: leave the file out"
            raise RowError(reason, path=path, line=kept + 1)


def _check_sizes(keys: list[str], path: str) -> None:
    """Refuse a table whose first or last group is cut off.

    Raises:
        RowError: names the line of the group's first response.
    """
    sizes = [len(list(same)) for _, same in groupby(keys)]
    largest = max(sizes, default=0)
    for size, line in ((sizes[:1], 1), (sizes[-1:], len(keys) - sum(sizes[-1:]) + 1)):
        if size and size[0] < largest:
            reason = f"{size[0]} responses to this prompt, but {largest} to another: is it cut off "
            reason += "by an evaluation's? leave the file out, or give --group-size"
            raise RowError(reason, path=path, line=line, field="group")


def _only_reward(rows: list[dict[str, Any]], path: str) -> str:
    numbers = {
        name
        for row in rows
        for name, value in row.items()
        if name not in _OWN and isinstance(value, int | float) and not isinstance(value, bool)
    }
    if len(numbers) == 1:
        return numbers.pop()
    found = ", ".join(sorted(numbers)) or "no column of numbers"
    raise SettingError(f"--outcome: name the column of the outcome reward: {path} has {found}")


def _response(
    row: Mapping[str, Any], path: str, line: int, columns: RewardColumns
) -> LoggedResponse:
    for name in ("step", "prompt", "completion"):
        if name not in row:
            raise RowError("missing", path=path, line=line, field=name)
    rollout = extra_columns(row, ("prompt", "completion"))
    rollout["prompt"] = _question(row["prompt"], path, line)
    rollout |= logged_rewards(row, columns, path, line)
    parts = _parts(row["completion"], path, line)
    return LoggedResponse(path, line, row["step"], repr(row["prompt"]), parts, rollout)


def _question(prompt: Any, path: str, line: int) -> str:
    if isinstance(prompt, str):
        return prompt
    turns = _messages(prompt, path, line, "prompt")
    questions = [turn["content"] for turn in turns if turn["role"] == "user"]
    return _content(questions[-1] if questions else turns[-1]["content"])


def _parts(completion: Any, path: str, line: int) -> list[tuple[str, bool]]:
    if isinstance(completion, str):
        return [(completion, True)]
    turns = _messages(completion, path, line, "completion")
    return [(_content(turn["content"]), turn["role"] == "assistant") for turn in turns]


def _messages(value: Any, path: str, line: int, field: str) -> list[dict[str, Any]]:
    if isinstance(value, list) and value and all(map(_is_message, value)):
        return value
    reason = "expected a text, or messages of role and content"
    raise RowError(reason, path=path, line=line, field=field)


def _content(content: Any) -> str:
    """A message's text, where it is one, or the texts of its parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return content or ""


def _is_message(turn: Any) -> bool:
    return isinstance(turn, dict) and {"role", "content"} <= turn.keys()
