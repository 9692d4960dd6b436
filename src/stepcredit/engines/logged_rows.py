"""Shared by the readers of TRL's and verl's logs: logged responses as rows of rollouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from stepcredit.data.files.rows import FIELDS
from stepcredit.data.rules import PARTLY_UNKNOWN, first_unknown
from stepcredit.errors import FileError, RolloutError, RowError, SettingError
from stepcredit.signals.row_scores import RowReader


@dataclass(frozen=True)
class RewardColumns:
    """Which logged columns are rewards.

    Args:
        outcome: the column of the outcome reward; None: the trainer's own default.
        format: the column of the format reward, if there is one.
        group_size: responses per prompt; None: consecutive responses to one prompt form a group.
    """

    outcome: str | None = None
    format: str | None = None
    group_size: int | None = None


@dataclass(frozen=True)
class LoggedResponse:
    """One logged response.

    Args:
        path, line: where it was read, for errors.
        step: the trainer's step.
        key: equal for all responses of one group, such as the prompt.
        parts: the response's texts in order, and whether the policy wrote each.
        row: further fields of the rollout.
    """

    path: str
    line: int
    step: Any
    key: str
    parts: Sequence[tuple[str, bool]]
    row: Mapping[str, Any]


def log_files(path: str | Path, pattern: str) -> list[Path]:
    """The file itself, or the files in a folder, in the order in which they were written.

    Args:
        path: a file or a folder.
        pattern: selects the files of a folder.

    Raises:
        FileError: the folder has no such file.
    """
    place = Path(path)
    if not place.is_dir():
        return [place]
    found = sorted(place.glob(pattern), key=lambda each: (len(each.name), each.name))
    if not found:
        raise FileError(f"{path}: no {pattern} in this folder")
    return found


def grouped_rows(
    logged: Iterable[LoggedResponse], columns: RewardColumns, tokenizer: Any
) -> Iterator[dict[str, Any]]:
    """Rows of rollouts: groups get the names `STEP/NUMBER`, texts are split into tokens.

    Args:
        logged: responses in the order of the log.
        columns: the reward columns; only the group size is read.
        tokenizer: the policy's; None: words are the tokens.

    Raises:
        RowError: an empty response, or a group whose size is not `group_size`.
    """
    reader = RowReader(tokenizer)
    for step, responses in groupby(logged, key=lambda each: each.step):
        for number, group in enumerate(_groups(responses, columns.group_size)):
            _check_known(group)
            for each in group:
                yield {"group": f"{step}/{number}", **each.row, **_tokens(each, reader)}


def _groups(
    responses: Iterable[LoggedResponse], size: int | None
) -> Iterator[list[LoggedResponse]]:
    for _, same in groupby(responses, key=lambda each: each.key):
        group = list(same)
        if size is None:
            yield group
            continue
        if len(group) % size:
            reason = f"{len(group)} responses to this prompt, not a multiple of {size}"
            raise RowError(reason, path=group[0].path, line=group[0].line, field="group")
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _check_known(group: Sequence[LoggedResponse]) -> None:
    """Refuse a reward that is known for only some of a group: statistics need all of them."""
    for name in ("outcome", "format"):
        unknown = first_unknown([each.row.get(name) for each in group])
        if unknown is not None:
            at = group[unknown]
            raise RowError(PARTLY_UNKNOWN, path=at.path, line=at.line, field=name)


def _tokens(logged: LoggedResponse, reader: RowReader) -> dict[str, Any]:
    """Text and tokens of a response; the loss mask too, if tools wrote some of the tokens."""
    try:
        parts = [reader.with_tokens({"text": text}) for text, _ in logged.parts]
    except RolloutError as error:
        raise error.at_line(logged.path, logged.line) from error.__cause__
    kind = "token_ids" if reader.tokenizer is not None else "tokens"
    row: dict[str, Any] = {"text": "".join(text for text, _ in logged.parts)}
    row[kind] = [token for part in parts for token in part[kind]]
    if not row[kind]:
        raise RowError("holds no token", path=logged.path, line=logged.line, field="text")
    if not all(own for _, own in logged.parts):
        sizes = [len(part[kind]) for part in parts]
        flags = [int(own) for _, own in logged.parts]
        row["loss_mask"] = [f for f, size in zip(flags, sizes, strict=True) for _ in range(size)]
    return row


def extra_columns(fields: Mapping[str, Any], converted: Iterable[str]) -> dict[str, Any]:
    """The other logged columns; `logged_NAME` where NAME has another meaning in the rollout format.

    Example:
        >>> extra_columns({"input": "?", "length": 5.0, "acc": 1}, ["input"])
        {'logged_length': 5.0, 'acc': 1}
    """
    known = set(converted)
    rest = {name: value for name, value in fields.items() if name not in known}
    return {f"logged_{name}" if name in FIELDS else name: rest[name] for name in rest}


def logged_rewards(
    fields: Mapping[str, Any], columns: RewardColumns, path: str, line: int
) -> dict[str, float | None]:
    """A response's outcome and format; None where the trainer logged none for this response.

    Args:
        fields: the logged columns.
        columns: the columns of the rewards; a reward without a column is left out.
        path, line: where they were read, for errors.

    Raises:
        SettingError: there is no such column.
        RowError: a reward is not a number.

    Example:
        >>> logged_rewards({"acc": 1, "score": 0.5}, RewardColumns("acc"), "1.jsonl", 1)
        {'outcome': 1.0}
    """
    names = {"outcome": columns.outcome, "format": columns.format}
    return {
        reward: logged_reward(fields, name, path, line, option=f"--{reward}")
        for reward, name in names.items()
        if name is not None
    }


def logged_reward(
    fields: Mapping[str, Any], name: str, path: str, line: int, *, option: str
) -> float | None:
    """A logged reward; None if the trainer logged none for this response.

    Args:
        fields: the logged columns.
        name: the reward's column.
        path, line: where they were read, for errors.
        option: the option that names the column, for errors.

    Raises:
        SettingError: there is no such column.
        RowError: the reward is not a number.
    """
    if name not in fields:
        numbers = [key for key, value in fields.items() if isinstance(value, int | float)]
        expected = ", ".join(numbers) or "none at all"
        raise SettingError(f"{option} {name}: no such column in {path}: numbers are {expected}")
    value = fields[name]
    if value is None or value != value:
        return None
    if not isinstance(value, int | float):
        raise RowError(f"expected a number, got {value!r}", path=path, line=line, field=name)
    return float(value)
