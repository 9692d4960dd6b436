"""Checks one row of a rollout file: its fields, their types, and the rules between them.

Lists stay Python lists. A check is a pass or two in C over a list (`sum`, `min`, `map`), which
costs less than building an array per row; a batch makes one array of all its rows afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from math import hypot
from operator import lt
from typing import Any

from stepcredit.data.inputs import LOGPROBS
from stepcredit.data.masking import row_steps_to_trained, row_tokens_to_trained
from stepcredit.data.rules import (
    LARGEST,
    NAME_TAKEN,
    NO_TRAINED_TOKEN,
    RESERVED_NAMES,
    fits_float32,
    shown,
    why_not_float32,
    wrong_end_order,
    wrong_last_end,
)
from stepcredit.data.states import FIELD as STATES
from stepcredit.data.states import Keys, keys_of_row, wrong_number
from stepcredit.data.streams import Steps, Stream, TokenAdvantages, Tokens
from stepcredit.errors import RolloutError

MOST_TOKENS = 100_000_000
NUMBERS = frozenset({int, float})
TRAJECTORY = "trajectory"
FIELDS = frozenset(
    {"group", "length", "prompt", "text", "tokens", "token_ids", "loss_mask", "step_ends"}
    | {"step_scores", "token_scores", "signals", "outcome", "format", "format_ok", "advantages"}
    | {STATES, TRAJECTORY}
    | {f"{name}_logprobs" for name in LOGPROBS}
)
"""The format's fields. All other fields are kept, and not read."""


@dataclass(slots=True)
class RowStream:
    """A row's values of one process stream, over the row's trained tokens.

    Args:
        kind: the class of the stream.
        values: scores or advantages.
        ends: where the steps end, for `Steps`.
    """

    kind: type[Stream]
    values: list[float]
    ends: list[int] | None = None


@dataclass(slots=True)
class Row:
    """A checked row; its values are over trained tokens.

    Args:
        fields: the row as read.
        position: rows before it in the file.
        line: its line in the file, from 1.
        length: trained tokens.
        mask: 1 for a trained token, 0 for another, over the response; None: all are trained.
        streams: process streams by name.
        logprobs: log-probs by model.
        step_ends: the field `step_ends`.
        tokens: the texts of the tokens.
        states: the state of each step as text, one tuple of keys per step; empty: not known.
        outcome, format, format_ok: the fields of these names.
        trajectory: the trajectory that the row is a part of, as text; None: one of its own.
        part_ends: the last trained token of each part, where the row is a whole trajectory.
        left_out: number of steps without a trained token, left out with their scores.
        is_listed: whether a list has one item per token; False where only `length` or step ends
            say how many tokens there are.
        size: bytes of the row's line; in a compressed file, about the memory that the row takes.
        raw: the row's line, while the file is written again with new members.
    """

    fields: dict[str, Any]
    position: int
    line: int
    length: int = 0
    mask: list[int] | None = None
    streams: dict[str, RowStream] = field(default_factory=dict)
    logprobs: dict[str, list[float]] = field(default_factory=dict)
    step_ends: list[int] | None = None
    tokens: list[str] | None = None
    states: Keys = field(default_factory=list)
    outcome: float | None = None
    format: float | None = None
    format_ok: bool = True
    trajectory: str | None = None
    part_ends: list[int] = field(default_factory=list)
    left_out: int = 0
    is_listed: bool = False
    size: int = 0
    raw: bytes = b""

    @property
    def group(self) -> str | int:
        """Label of the prompt the response answers."""
        label: str | int = self.fields["group"]
        return label

    @property
    def gate_without_format(self) -> bool:
        """Whether `format_ok` is false but there is no format reward."""
        return not self.format_ok and self.format is None


def check_row(fields: Any, *, position: int = 0, line: int = 1, needs_tokens: bool = True) -> Row:
    """A row of the format, checked by itself.

    Args:
        fields: the row as read; it is not changed.
        position: rows before it.
        line: its line in the file.
        needs_tokens: whether a field must say how many tokens there are; else the length is 0
            where none does.

    Returns:
        The row's signals over its trained tokens.

    Raises:
        RolloutError: the first rule it breaks, by field.

    Example:
        >>> check_row({"group": 1, "loss_mask": [1, 0, 1], "token_scores": [0.5, 9, 0.25]}).length
        2
    """
    if type(fields) is not dict:
        raise RolloutError(f"expected an object, got {shown(fields, as_json=True)}")
    row = Row(fields, position, line)
    _check_group(fields)
    for name in ("prompt", "text"):
        if name in fields and type(fields[name]) is not str:
            raise _wrong(name, "a string", fields[name])
    size = _Size()
    _read_mask(row, fields, size)
    _read_lists(row, fields, size)
    _read_process(row, fields, size)
    _read_states(row, fields)
    _read_signals(row, fields, size)
    if "advantages" in fields:
        _check_advantages(row, fields["advantages"], size)
    if needs_tokens or size.tokens is not None:
        row.length, row.is_listed = size.trained(fields), size.is_listed
    if fields.get(TRAJECTORY) is not None:
        row.trajectory = _label(fields, TRAJECTORY)
    row.outcome = _scalar(fields, "outcome")
    row.format = _scalar(fields, "format")
    row.format_ok = fields.get("format_ok", True)
    if type(row.format_ok) is not bool:
        raise _wrong("format_ok", "true or false", row.format_ok)
    return row


def _wrong(name: str, expected: str, value: Any) -> RolloutError:
    return RolloutError(f"expected {expected}, got {shown(value, as_json=True)}", field=name)


def _check_group(fields: dict[str, Any]) -> None:
    if "group" not in fields:
        raise RolloutError("missing", field="group")
    _label(fields, "group")


def _label(fields: dict[str, Any], name: str) -> str:
    """The label of a group or a trajectory as text: 3 and "3" are the same."""
    if type(fields[name]) not in (str, int):
        raise _wrong(name, "a string or an integer", fields[name])
    return str(fields[name])


def fields_per_token(row: Row) -> list[str]:
    """The fields with a row's values of tokens and steps; all parts of a trajectory have the same.

    Example:
        >>> row = {"group": 1, "step_ends": [0], "step_scores": [0.5], "teacher_logprobs": [-1.0]}
        >>> fields_per_token(check_row(row))
        ['step_scores', 'teacher_logprobs', 'step_ends']
    """
    held = [stream_field(row, name) for name, stream in row.streams.items() if stream.values]
    held += [f"{name}_logprobs" for name in row.logprobs]
    own = {"step_ends": row.step_ends, "tokens": row.tokens, STATES: row.states}
    return held + [name for name, values in own.items() if values]


def stream_field(row: Row, name: str) -> str:
    """The field that holds a row's process stream of a name."""
    if name in row.fields.get("signals", {}):
        return f"signals.{name}"
    return "step_scores" if row.streams[name].kind is Steps else "token_scores"


class _Size:
    """The number of tokens of a response: every field that implies it must agree."""

    __slots__ = ("is_listed", "mask", "tokens")

    def __init__(self) -> None:
        self.tokens: int | None = None
        self.is_listed = False
        self.mask: list[int] | None = None

    def agree(self, name: str, tokens: int, *, steps: bool = False) -> None:
        """Take the number of tokens from a field, or compare it with what another field implied."""
        self.is_listed |= not steps and name != "length"
        if self.tokens == tokens:
            return
        if self.tokens is not None:
            reason = f"{tokens} values, but the response has {self.tokens} tokens"
            if steps:
                reason = wrong_last_end(tokens - 1, self.tokens - 1)
            raise RolloutError(reason, field=name)
        if tokens < 1:
            raise RolloutError(NO_TRAINED_TOKEN, field=name)
        if tokens > MOST_TOKENS:
            raise RolloutError(f"{tokens} tokens, expected at most {MOST_TOKENS}", field=name)
        self.tokens = tokens

    def trained(self, fields: dict[str, Any]) -> int:
        """Trained tokens, which `length` must agree with."""
        if self.tokens is None:
            raise RolloutError("missing, and no other field implies it", field="length")
        if self.mask is None:
            return self.tokens
        trained = sum(self.mask)
        if fields.get("length", trained) != trained:
            reason = f"{fields['length']}, but loss_mask trains {trained}"
            raise RolloutError(reason, field="length")
        return trained


def _read_mask(row: Row, fields: dict[str, Any], size: _Size) -> None:
    length = fields.get("length", 1)
    if type(length) is not int:
        raise _wrong("length", "a whole number", length)
    if "loss_mask" in fields:
        mask = _integers(fields["loss_mask"], "loss_mask")
        if not {0, 1}.issuperset(mask):
            raise RolloutError("expected only 0 and 1", field="loss_mask")
        _check_mask_length(mask, fields)
        if not any(mask):
            raise RolloutError(NO_TRAINED_TOKEN, field="loss_mask")
        row.mask = size.mask = mask if 0 in mask else None
        size.agree("loss_mask", len(mask))
    if "length" in fields and size.mask is None:
        size.agree("length", length)


def _check_mask_length(mask: list[int], fields: dict[str, Any]) -> None:
    """A mask has one flag per token; where the tokens are listed, they say how many there are."""
    for name in ("token_ids", "tokens"):
        tokens = fields.get(name)
        if type(tokens) is list and len(tokens) != len(mask):
            reason = f"{len(mask)} values, but {name} has {len(tokens)}"
            raise RolloutError(reason, field="loss_mask")


def _read_lists(row: Row, fields: dict[str, Any], size: _Size) -> None:
    """The lists that are no process signal: token ids, texts, step ends and log-probs."""
    if "token_ids" in fields:
        size.agree("token_ids", len(_integers(fields["token_ids"], "token_ids")))
    if "tokens" in fields:
        texts = _list(fields["tokens"], "tokens", frozenset({str}), "strings")
        size.agree("tokens", len(texts))
        row.tokens = row_tokens_to_trained(texts, row.mask)
    if "step_ends" in fields:
        ends = _ends(fields["step_ends"], "step_ends")
        size.agree("step_ends", ends[-1] + 1, steps=True)
        row.step_ends = row_steps_to_trained(ends, ends, row.mask)[0]
    for name in LOGPROBS:
        key = f"{name}_logprobs"
        if key in fields:
            values = _numbers(fields[key], key)
            size.agree(key, len(values))
            row.logprobs[name] = row_tokens_to_trained(values, row.mask)


def _check_advantages(row: Row, values: Any, size: _Size) -> None:
    """Advantages that a trainer or `shape` left: one per response token, or per trained token."""
    count = len(_numbers(values, "advantages"))
    if row.mask is None or count != sum(row.mask):
        size.agree("advantages", count)


def _read_process(row: Row, fields: dict[str, Any], size: _Size) -> None:
    """The stream "process": one score per step, or one per token."""
    if "step_scores" in fields:
        scores = _numbers(fields["step_scores"], "step_scores")
        if "token_scores" in fields:
            reason = "is given with step_scores: expected only one of them"
            raise RolloutError(reason, field="token_scores")
        if "step_ends" not in fields:
            raise RolloutError("missing, and step_scores need it", field="step_ends")
        row.streams["process"] = _steps(row, scores, fields["step_ends"], "step_scores")
    elif "token_scores" in fields:
        scores = _numbers(fields["token_scores"], "token_scores")
        size.agree("token_scores", len(scores))
        row.streams["process"] = RowStream(Tokens, row_tokens_to_trained(scores, row.mask))


def _read_states(row: Row, fields: dict[str, Any]) -> None:
    """The state of each step, for the steps that have a trained token."""
    if STATES not in fields:
        return
    given = fields[STATES]
    if type(given) is not list:
        raise _wrong(STATES, "a list of strings, integers, or lists of them", given)
    if "step_ends" not in fields:
        raise RolloutError("missing, and step_states need it", field="step_ends")
    ends, keys = fields["step_ends"], keys_of_row(given)
    if len(keys) != len(ends):
        raise RolloutError(wrong_number(len(keys), len(ends)), field=STATES)
    row.states = row_steps_to_trained(ends, keys, row.mask)[1]
    if "step_scores" not in fields:
        row.left_out += len(keys) - len(row.states)


def _read_signals(row: Row, fields: dict[str, Any], size: _Size) -> None:
    if "signals" not in fields:
        return
    signals = fields["signals"]
    if type(signals) is not dict:
        raise _wrong("signals", "an object", signals)
    for name, signal in signals.items():
        place = f"signals.{name}"
        if type(signal) is not dict:
            raise _wrong(place, "an object", signal)
        stream = _named_stream(row, signal, place, size)
        if name in RESERVED_NAMES or (name in row.streams and stream.values):
            raise RolloutError(NAME_TAKEN, field=place)
        row.streams.setdefault(name, stream)


def _named_stream(row: Row, signal: dict[str, Any], place: str, size: _Size) -> RowStream:
    """A stream of `signals`: scores by step or by token, or ready-made advantages.

    Empty lists say that the row has no value of the stream; they still give the stream's name, its
    kind and its place among the streams.
    """
    if ("scores" in signal) == ("advantages" in signal):
        raise RolloutError("expected either scores or advantages", field=place)
    key = "scores" if "scores" in signal else "advantages"
    values = _numbers(signal[key], f"{place}.{key}")
    if "ends" in signal:
        if key == "advantages":
            reason = "advantages are one per token: expected no ends"
            raise RolloutError(reason, field=f"{place}.ends")
        if signal["ends"] == values == []:
            return RowStream(Steps, [], [])
        ends = _ends(signal["ends"], f"{place}.ends")
        size.agree(f"{place}.ends", ends[-1] + 1, steps=True)
        return _steps(row, values, ends, f"{place}.scores")
    if values:
        size.agree(f"{place}.{key}", len(values))
    kind: type[Stream] = Tokens if key == "scores" else TokenAdvantages
    return RowStream(kind, row_tokens_to_trained(values, row.mask))


def _steps(row: Row, scores: list[float], ends: list[int], place: str) -> RowStream:
    if len(scores) != len(ends):
        raise RolloutError(f"{len(scores)} scores, but {len(ends)} step ends", field=place)
    kept, values = row_steps_to_trained(ends, scores, row.mask)
    row.left_out += len(ends) - len(kept)
    return RowStream(Steps, values, kept)


def _list(values: Any, name: str, types: frozenset[type], what: str) -> list[Any]:
    if type(values) is not list:
        raise _wrong(name, f"a list of {what}", values)
    if not types.issuperset(map(type, values)):
        at = _first(values, lambda value: type(value) not in types)
        raise RolloutError(
            f"expected {what}, got {shown(values[at], as_json=True)} at index {at}", field=name
        )
    return values


def _integers(values: Any, name: str) -> list[int]:
    return _list(values, name, frozenset({int}), "integers")


def _numbers(values: Any, name: str) -> list[float]:
    """A list of numbers that float32 can hold."""
    numbers = _list(values, name, NUMBERS, "numbers")
    if not (_plainly_fit(numbers) or all(map(fits_float32, numbers))):
        at = _first(numbers, lambda value: not fits_float32(value))
        value = numbers[at]
        reason = f"{shown(value, as_json=True)} at index {at} {why_not_float32(value)}"
        raise RolloutError(reason, field=name)
    return numbers


def _plainly_fit(numbers: list[float]) -> bool:
    """Whether the root of the sum of squares, which no number exceeds, is far below the limit.

    It is one pass in C: a sixth of the time of a minimum, a maximum and a sum.
    """
    try:
        return hypot(*numbers) < LARGEST / 2
    except OverflowError:  # an integer that no float holds
        return False


def _first(values: Iterable[Any], test: Callable[[Any], bool]) -> int:
    return next(at for at, value in enumerate(values) if test(value))


def _ends(values: Any, name: str) -> list[int]:
    """A list of step ends: at least one, from 0, strictly increasing."""
    ends = _integers(values, name)
    if not ends:
        raise RolloutError("expected at least one step", field=name)
    if ends[0] < 0:
        raise RolloutError(wrong_end_order(ends[0], None), field=name)
    if not all(map(lt, ends, islice(ends, 1, None))):
        at = next(i for i in range(1, len(ends)) if ends[i] <= ends[i - 1])
        raise RolloutError(wrong_end_order(ends[at], ends[at - 1]), field=name)
    return ends


def _scalar(fields: dict[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) not in NUMBERS:
        raise _wrong(name, "a number or null", value)
    if not fits_float32(value):
        reason = f"{shown(value, as_json=True)} {why_not_float32(value)}"
        raise RolloutError(reason, field=name)
    return float(value)
