"""One row of a rollout file, checked: what it may hold, and what it says when it breaks a rule.

Lists stay Python lists: a check is a pass or two in C over them (`sum`, `min`, `map`), which costs
less than building an array a row, and a batch makes one array of all rows afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
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
from stepcredit.data.streams import Steps, Stream, TokenAdvantages, Tokens
from stepcredit.errors import RolloutError

MOST_TOKENS = 100_000_000
NUMBERS = frozenset({int, float})
FIELDS = frozenset(
    {"group", "length", "prompt", "text", "tokens", "token_ids", "loss_mask", "step_ends"}
    | {"step_scores", "token_scores", "signals", "outcome", "format", "format_ok", "advantages"}
    | {f"{name}_logprobs" for name in LOGPROBS}
)
"""The format's fields; all others are carried."""


@dataclass(slots=True)
class Signal:
    """A row's values of one stream over its trained tokens, and the stream they belong to."""

    kind: type[Stream]
    values: list[float]
    ends: list[int] | None = None


@dataclass(slots=True)
class Row:
    """A checked row, over trained tokens; `fields` is the row as read.

    Args:
        fields: the row as read.
        position: rows before it in the file.
        line: its line in the file, from 1.
        length: trained tokens.
        mask: 1 a trained token, 0 another, over the response; None: all are trained.
        left_out: steps without a trained token, left out with their scores.
        is_listed: a list holds the row's tokens one by one; False: only `length` or ends do.
        size: bytes of its line; of a compressed file's, about the memory it takes.
    """

    fields: dict[str, Any]
    position: int
    line: int
    length: int = 0
    mask: list[int] | None = None
    streams: dict[str, Signal] = field(default_factory=dict)
    logprobs: dict[str, list[float]] = field(default_factory=dict)
    step_ends: list[int] | None = None
    tokens: list[str] | None = None
    outcome: float | None = None
    format: float | None = None
    format_ok: bool = True
    left_out: int = 0
    is_listed: bool = False
    size: int = 0

    @property
    def group(self) -> str | int:
        """Label of the prompt the response answers."""
        label: str | int = self.fields["group"]
        return label

    @property
    def gate_is_mute(self) -> bool:
        """A broken format, and no format reward that could teach it."""
        return not self.format_ok and self.format is None


def check_row(fields: Any, *, position: int = 0, line: int = 1) -> Row:
    """A row of the format, checked by itself.

    Args:
        fields: the row as read; it is not changed.
        position: rows before it.
        line: its line in the file.

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
    _read_signals(row, fields, size)
    if "advantages" in fields:
        size.agree("advantages", len(_numbers(fields["advantages"], "advantages")))
    row.length, row.is_listed = size.trained(fields), size.is_listed
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
    if type(fields["group"]) not in (str, int):
        raise _wrong("group", "a string or an integer", fields["group"])


class _Size:
    """Tokens in a response, on which every field that tells them must agree."""

    __slots__ = ("is_listed", "mask", "tokens")

    def __init__(self) -> None:
        self.tokens: int | None = None
        self.is_listed = False
        self.mask: list[int] | None = None

    def agree(self, name: str, tokens: int, *, steps: bool = False) -> None:
        """Take a field's word for the number of tokens, or hold it to what was told before."""
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
            raise RolloutError("missing, and no other field tells it", field="length")
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
        if not any(mask):
            raise RolloutError(NO_TRAINED_TOKEN, field="loss_mask")
        row.mask = size.mask = mask if 0 in mask else None
        size.agree("loss_mask", len(mask))
    if "length" in fields and size.mask is None:
        size.agree("length", length)


def _read_lists(row: Row, fields: dict[str, Any], size: _Size) -> None:
    """The token-level fields that are no process signal, and the steps' ends."""
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


def _read_process(row: Row, fields: dict[str, Any], size: _Size) -> None:
    """The stream "process": one score a step, or one a token."""
    if "step_scores" in fields:
        scores = _numbers(fields["step_scores"], "step_scores")
        if "token_scores" in fields:
            reason = "stands beside step_scores: expected one of them"
            raise RolloutError(reason, field="token_scores")
        if "step_ends" not in fields:
            raise RolloutError("missing, and step_scores need it", field="step_ends")
        row.streams["process"] = _steps(row, scores, fields["step_ends"], "step_scores")
    elif "token_scores" in fields:
        scores = _numbers(fields["token_scores"], "token_scores")
        size.agree("token_scores", len(scores))
        row.streams["process"] = Signal(Tokens, row_tokens_to_trained(scores, row.mask))


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
        found = _signal(row, signal, place, size)
        if name in RESERVED_NAMES or (name in row.streams and found.values):
            raise RolloutError(NAME_TAKEN, field=place)
        row.streams.setdefault(name, found)


def _signal(row: Row, signal: dict[str, Any], place: str, size: _Size) -> Signal:
    """One further process stream: scores by step or by token, or ready-made advantages.

    Empty lists name a stream, its kind and its place among the streams, of which the row has none.
    """
    if ("scores" in signal) == ("advantages" in signal):
        raise RolloutError("expected either scores or advantages", field=place)
    key = "scores" if "scores" in signal else "advantages"
    values = _numbers(signal[key], f"{place}.{key}")
    if "ends" in signal:
        if key == "advantages":
            reason = "advantages are one a token: expected no ends"
            raise RolloutError(reason, field=f"{place}.ends")
        if signal["ends"] == values == []:
            return Signal(Steps, [], [])
        ends = _ends(signal["ends"], f"{place}.ends")
        size.agree(f"{place}.ends", ends[-1] + 1, steps=True)
        return _steps(row, values, ends, f"{place}.scores")
    if values:
        size.agree(f"{place}.{key}", len(values))
    kind: type[Stream] = Tokens if key == "scores" else TokenAdvantages
    return Signal(kind, row_tokens_to_trained(values, row.mask))


def _steps(row: Row, scores: list[float], ends: list[int], place: str) -> Signal:
    if len(scores) != len(ends):
        raise RolloutError(f"{len(scores)} scores, but {len(ends)} step ends", field=place)
    kept, values = row_steps_to_trained(ends, scores, row.mask)
    row.left_out += len(ends) - len(kept)
    return Signal(Steps, values, kept)


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
    """Numbers that float32 can hold. A sum is finite only if every term is."""
    numbers = _list(values, name, NUMBERS, "numbers")
    if numbers and not _all_finite(numbers):
        at = _first(numbers, lambda value: not fits_float32(value))
        value = numbers[at]
        reason = f"{shown(value, as_json=True)} at index {at} {why_not_float32(value)}"
        raise RolloutError(reason, field=name)
    return numbers


def _all_finite(numbers: list[float]) -> bool:
    try:
        total = isfinite(sum(numbers))
    except OverflowError:
        return False
    return total and min(numbers) >= -LARGEST and max(numbers) <= LARGEST


def _first(values: Iterable[Any], test: Callable[[Any], bool]) -> int:
    return next(at for at, value in enumerate(values) if test(value))


def _ends(values: Any, name: str) -> list[int]:
    """Step ends: at least one, from 0, strictly increasing."""
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
