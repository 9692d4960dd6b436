"""Checks of what goes into `Rollouts`: each refuses with the row and the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from operator import countOf
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stepcredit._moved import renamed
from stepcredit.data.containers import (
    array_like,
    integers_of,
    is_numeric,
    missing_as_none,
    vector_of,
)
from stepcredit.data.forest import all_true
from stepcredit.data.packing import Rows, check_float32, items_of, pack_numbers, pack_rows
from stepcredit.data.rules import NAME_TAKEN, PARTLY_UNKNOWN, RESERVED_NAMES, shown
from stepcredit.data.streams import Stream, Tokens, check_increasing
from stepcredit.errors import RolloutError

Process = Stream | Mapping[str, Stream]
Scalars = Sequence[float | None] | Tensor | np.ndarray
Value = TypeVar("Value")
LOGPROBS = ("student", "teacher", "base", "prm", "ref")


@dataclass(frozen=True, eq=False)
class RolloutValues:
    """One number per rollout, such as the outcome; 0 where it is not known."""

    values: Float[Tensor, " rollout"]
    known: Bool[Tensor, " rollout"]

    @cached_property
    def all_known(self) -> bool:
        """Whether the number of every rollout is known."""
        return all_true(self.known)

    @cached_property
    def any_known(self) -> bool:
        """Whether the number of any rollout is known."""
        return bool(self.known.any())

    def to(self, device: torch.device | str) -> RolloutValues:
        """The same values on another device."""
        return RolloutValues(self.values.to(device), self.known.to(device))

    def take(self, rows: Tensor | slice) -> RolloutValues:
        """The values of the given rollouts."""
        return RolloutValues(self.values[rows], self.known[rows])


def named_streams(process: Process | None) -> dict[str, Stream]:
    """Streams by name; a single stream is "process"."""
    kinds = "Steps, Tokens or TokenAdvantages"
    if isinstance(process, Stream):
        return {"process": process}
    named = dict(by_name(process, "process", f"{kinds}, or streams by name"))
    for name, stream in named.items():
        if not isinstance(name, str):
            raise RolloutError(
                f"expected a name for each stream, got {shown(name)}", field="process"
            )
        if not isinstance(stream, Stream):
            kind = type(stream).__name__
            raise RolloutError(f"expected {kinds}, got {kind}", field=name)
        if name in RESERVED_NAMES:
            raise RolloutError(NAME_TAKEN, field=name)
    return named


def named_logprobs(logprobs: Mapping[str, Tokens | Rows] | None) -> dict[str, Tokens]:
    """Log-probs by model, packed."""
    named: dict[str, Tokens] = {}
    for name, rows in by_name(logprobs, "logprobs", "log-probs by model").items():
        field = logprobs_field(name)
        if not isinstance(rows, Tokens):
            values, counts = pack_numbers(rows, None, field)
            rows = Tokens._of(values=values, counts=counts)
        named[name] = rows
    return named


def logprobs_field(name: str) -> str:
    """The name of a model's log-probs in messages and files."""
    if name not in LOGPROBS:
        reason = f"unknown log-probs: expected one of {', '.join(LOGPROBS)}"
        raise RolloutError(reason, field=str(name))
    return f"{name}_logprobs"


def by_name(given: Mapping[str, Value] | None, field: str, what: str) -> Mapping[str, Value]:
    """An argument that is given by name; None has nothing."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise RolloutError(f"expected {what}, got {type(given).__name__}", field=field)
    return given


def step_ends_stream(rows: Rows | Stream | None) -> Stream | None:
    """Packed step ends without scores."""
    if rows is None or isinstance(rows, Stream):
        return rows
    ends, counts = pack_rows(rows, None, "step_ends", torch.int64)
    check_increasing(ends, counts, "step_ends")
    return Stream._of(values=ends, counts=counts)


def group_rows(group: Sequence[Any] | Tensor | np.ndarray) -> tuple[list[str | int], Tensor]:
    """Labels in order of first appearance, and each row's index among them, on the CPU."""
    group = array_like(group, "group")
    if isinstance(group, Tensor) or (isinstance(group, np.ndarray) and group.dtype.kind in "biuf"):
        return integer_groups(integers_of(group, "group").cpu().numpy())
    index: dict[str, int] = {}
    labels: list[str | int] = []
    rows = []
    for row, label in enumerate(items_of(group, "group", "one label per rollout")):
        check_label(label, row, "group")
        if str(label) not in index:
            index[str(label)] = len(labels)
            labels.append(str(label) if isinstance(label, str) else int(label))
        rows.append(index[str(label)])
    return labels, torch.tensor(rows, dtype=torch.int64, device="cpu")


def check_label(label: Any, row: int, field: str) -> None:
    """A group's or a trajectory's label is a string or an integer.

    Raises:
        RolloutError: names the row.
    """
    if not isinstance(label, str | int | np.integer) or isinstance(label, bool):
        reason = f"{shown(label)} is neither a string nor an integer"
        raise RolloutError(reason, row=row, field=field)


def integer_groups(group: np.ndarray) -> tuple[list[str | int], Tensor]:
    """`group_rows` of an array of integers.

    Example:
        >>> integer_groups(np.array([7, 3, 7]))
        ([7, 3], tensor([0, 1, 0]))
    """
    if group.ndim != 1:
        raise RolloutError(f"shape is {group.shape}, expected (rollouts,)", field="group")
    if bool((group[1:] >= group[:-1]).all()):
        new = np.ones(group.size, dtype=bool)
        np.not_equal(group[1:], group[:-1], out=new[1:])
        return group[new].tolist(), torch.from_numpy(new.cumsum() - 1)
    unique, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return unique[order].tolist(), torch.from_numpy(rank[inverse.reshape(-1)])


def rollout_values(given: Scalars | None, group: Tensor, field: str) -> RolloutValues:
    """One number per rollout, on the device of `group`.

    None in a list, a masked value of an array, and a missing value of Arrow, Polars or pandas'
    nullable types is unknown.
    """
    if given is None:
        values = torch.zeros(group.numel(), dtype=torch.float64, device=group.device)
        return RolloutValues(values, torch.zeros_like(values, dtype=torch.bool))
    given = missing_as_none(given)
    if type(given) is list and countOf(map(type, given), float) == len(given):
        given = np.array(given, dtype=np.float64)  # without a list per rollout
    given = _masked_as_none(given) if isinstance(given, np.ndarray) else array_like(given, field)
    if is_numeric(given):
        values = vector_of(given, field).to(device=group.device, dtype=torch.float64)
        known = torch.ones_like(values, dtype=torch.bool)
    else:
        rows = [[] if v is None else [v] for v in items_of(given, field, "one number per rollout")]
        packed, counts = pack_rows(rows, None, field, None)
        known = counts.to(group.device) > 0
        values = torch.zeros(known.numel(), dtype=torch.float64, device=group.device)
        values[known] = packed.to(group.device)
    if values.numel() != group.numel():
        raise RolloutError(f"{values.numel()} values, but {group.numel()} rollouts", field=field)
    check_float32(values, None, field)
    return RolloutValues(values, known)


def _masked_as_none(given: np.ndarray) -> Any:
    """An array with masked values, or of Python objects, as a list: a masked value is None."""
    return given.tolist() if np.ma.is_masked(given) or given.dtype == object else given


def check_whole_groups(values: RolloutValues, group: Tensor, groups: int, field: str) -> None:
    """Outcome and format are known for all rollouts of a group or for none of it.

    Args:
        values: one number per rollout.
        group: the group of each rollout.
        groups: how many groups there are.
        field: name used in messages.

    Raises:
        RolloutError: the first rollout that lacks what others of its group have.
    """
    if values.all_known or not values.any_known:
        return
    some = torch.zeros(groups, dtype=torch.bool, device=group.device)
    some[group[values.known]] = True
    bad = some[group] & ~values.known
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise RolloutError(PARTLY_UNKNOWN, row=row, field=field)


def flags_of(
    given: Sequence[bool] | Tensor | None,
    count: int,
    device: torch.device,
    field: str = "format_ok",
) -> Bool[Tensor, " rollout"]:
    """One flag per rollout, True where left out."""
    if given is None:
        return torch.ones(count, dtype=torch.bool, device=device)
    given = array_like(given, field)
    flags = _numeric_flags(given, field) if is_numeric(given) else _listed_flags(given, field)
    if flags.numel() != count:
        raise RolloutError(f"{flags.numel()} values, but {count} rollouts", field=field)
    return flags.to(device)


def _listed_flags(given: Any, field: str) -> Tensor:
    values = items_of(given, field, "true or false per rollout")
    for row, value in enumerate(values):
        if not isinstance(value, bool | np.bool_):
            raise RolloutError(f"{shown(value)} is not true or false", row=row, field=field)
    return torch.tensor(values, dtype=torch.bool, device="cpu")


def _numeric_flags(given: Tensor | np.ndarray, field: str) -> Tensor:
    flags = vector_of(given, field)
    if flags.dtype == torch.bool:
        return flags
    if flags.is_floating_point():
        kind = str(flags.dtype).removeprefix("torch.")
        raise RolloutError(f"expected true or false, got {kind}", field=field)
    bad = (flags != 0) & (flags != 1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise RolloutError(f"{int(flags[row])} is not true or false", row=row, field=field)
    return flags.to(torch.bool)


def texts_of(given: Sequence[Sequence[str] | None] | None) -> list[list[str]] | None:
    """The texts of each rollout's tokens; a row of None has none."""
    if given is None:
        return None
    texts = []
    for row, items in enumerate(items_of(given, "tokens", "a list of texts per rollout")):
        listed = [] if items is None else items_of(items, "tokens", "a list of texts", row)
        if not {str}.issuperset(map(type, listed)):
            bad = [value for value in listed if not isinstance(value, str)]
            if bad:
                raise RolloutError(f"{shown(bad[0])} is not a string", row=row, field="tokens")
        texts.append(listed)
    return texts


__getattr__ = partial(renamed, __name__)
