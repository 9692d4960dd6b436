"""What trainers log of their rollouts, as rows: what TRL's and verl's logs have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from stepcredit.errors import FileError, RolloutError, RowError, SettingError
from stepcredit.signals.row_scores import LOGPROB_FIELDS, RowReader

_FORMAT = {
    *("group", "length", "prompt", "text", "tokens", "token_ids", "loss_mask"),
    *("step_ends", "step_scores", "token_scores", "signals", *LOGPROB_FIELDS),
    *("outcome", "format", "format_ok", "advantages"),
}


@dataclass(frozen=True)
class Columns:
    """Which logged columns are rewards.

    Args:
        outcome: the column of the outcome reward; None: the trainer's own default.
        format: the column of the format reward, where one is.
        group_size: responses a prompt; None: a group is as long as the prompt stays the same.
    """

    outcome: str | None = None
    format: str | None = None
    group_size: int | None = None


@dataclass(frozen=True)
class Logged:
    """One logged response.

    Args:
        place: `FILE:ROW`, for messages.
        step: the trainer's.
        key: what responses of one group share, such as the prompt.
        parts: the response's texts in order, and whether the policy wrote them.
        row: further fields of the rollout.
    """

    path: str
    line: int
    step: Any
    key: str
    parts: Sequence[tuple[str, bool]]
    row: Mapping[str, Any]


def files_in(path: str | Path, pattern: str) -> list[Path]:
    """A file itself, or those of a folder, in the order they were written.

    Raises:
        FileError: there is none.
    """
    place = Path(path)
    if not place.is_dir():
        return [place]
    found = sorted(place.glob(pattern), key=lambda each: (len(each.name), each.name))
    if not found:
        raise FileError(f"{path}: no {pattern} in this folder")
    return found


def grouped(logged: Iterable[Logged], columns: Columns, tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Rows of the format: groups named `STEP/NUMBER`, tokens made of the texts.

    Raises:
        RowError: a response that holds nothing, or a group of another size than told.
    """
    reader = RowReader(tokenizer)
    for step, responses in groupby(logged, key=lambda each: each.step):
        for number, group in enumerate(_groups(responses, columns.group_size)):
            _check_known(group)
            for each in group:
                yield {"group": f"{step}/{number}", **each.row, **_tokens(each, reader)}


def _groups(responses: Iterable[Logged], size: int | None) -> Iterator[list[Logged]]:
    for _, same in groupby(responses, key=lambda each: each.key):
        group = list(same)
        if size is None:
            yield group
            continue
        if len(group) % size:
            reason = f"{len(group)} responses to this prompt, not a multiple of {size}"
            raise RowError(reason, path=group[0].path, line=group[0].line, field="group")
        yield from (group[start : start + size] for start in range(0, len(group), size))


def _check_known(group: Sequence[Logged]) -> None:
    """Refuse a reward that only some of a group have: its statistics need all."""
    for name in ("outcome", "format"):
        unknown = [each for each in group if each.row.get(name) is None]
        if unknown and len(unknown) < len(group):
            reason = "unknown, but known for others of its group"
            raise RowError(reason, path=unknown[0].path, line=unknown[0].line, field=name)


def _tokens(logged: Logged, reader: RowReader) -> dict[str, Any]:
    """Text, tokens, and where tools answered, the mask and the policy's turns as steps."""
    try:
        parts = [reader.with_tokens({"text": text}) for text, _ in logged.parts]
    except RolloutError as error:
        reason, field = error.reason, error.field
        raise RowError(reason, path=logged.path, line=logged.line, field=field) from None
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


def carried(fields: Mapping[str, Any], converted: Iterable[str]) -> dict[str, Any]:
    """What else is logged; `logged_NAME` where the format has another meaning for the name.

    Example:
        >>> carried({"input": "?", "length": 5.0, "acc": 1}, ["input"])
        {'logged_length': 5.0, 'acc': 1}
    """
    rest = {name: value for name, value in fields.items() if name not in set(converted)}
    return {f"logged_{name}" if name in _FORMAT else name: rest[name] for name in rest}


def reward_of(
    fields: Mapping[str, Any], name: str, path: str, line: int, *, option: str
) -> float | None:
    """A logged reward; None where the trainer logged none for this response.

    Raises:
        SettingError: there is no such column.
        RowError: it is no number.
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
