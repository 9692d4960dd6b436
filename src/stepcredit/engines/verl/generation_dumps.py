"""Converts verl's dumped generations (`trainer.rollout_data_dir`) to rollouts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepcredit.data.files.jsonl import parse
from stepcredit.data.files.lines import Source
from stepcredit.engines.logged_rows import (
    LoggedResponse,
    RewardColumns,
    extra_columns,
    grouped_rows,
    log_files,
    logged_rewards,
)
from stepcredit.errors import RolloutError, RowError

_SAMPLE = re.compile(r"(.+)_\d+_\d+")


def read_verl_dumps(
    path: str | Path, columns: RewardColumns | None = None, tokenizer: Any = None
) -> Iterator[dict[str, Any]]:
    """The responses that verl dumped, as rows of rollouts in their order.

    Responses form a group if their `uid` names the same sample. Without `uid`, consecutive
    responses to the same input do.

    Args:
        path: a `STEP.jsonl` file, or a folder of such files.
        columns: the reward columns; the outcome's default is `score`.
        tokenizer: the policy's; without one, words are the tokens.

    Raises:
        FileError: a file can't be read.
        RowError: a line does not have verl's form.
        SettingError: a column does not exist.
    """
    columns = columns or RewardColumns()
    if columns.outcome is None:
        columns = replace(columns, outcome="score")
    return grouped_rows(_logged(path, columns), columns, tokenizer)


def _logged(path: str | Path, columns: RewardColumns) -> Iterator[LoggedResponse]:
    for file in log_files(path, "*.jsonl"):
        with Source(file) as source:
            for _, line, raw in source.lines():
                try:
                    fields = parse(raw)
                except RolloutError as error:
                    raise error.at_line(str(file), line) from error.__cause__
                yield _response(fields, str(file), line, columns)


def _response(fields: Any, path: str, line: int, columns: RewardColumns) -> LoggedResponse:
    if not isinstance(fields, dict):
        raise RowError("expected an object", path=path, line=line)
    for name in ("input", "output"):
        if not isinstance(fields.get(name), str):
            reason = "missing" if name not in fields else "expected a string"
            raise RowError(reason, path=path, line=line, field=name)
    rollout = extra_columns(fields, ("input", "output", "gts"))
    rollout["prompt"] = fields["input"]
    rollout |= logged_rewards(fields, columns, path, line)
    if fields.get("gts") is not None:
        rollout["answer"] = fields["gts"]
    step = fields.get("step", Path(path).stem)
    return LoggedResponse(path, line, step, _key(fields), [(fields["output"], True)], rollout)


def _key(fields: Mapping[str, Any]) -> str:
    """The key of a response's group: SAMPLE of its uid `SAMPLE_ROLLOUT_OUTPUT`, or its input."""
    uid = fields.get("uid")
    if uid is None:
        return f"input {fields['input']}"
    sample = _SAMPLE.fullmatch(str(uid))
    return f"uid {sample[1] if sample else uid}"
