"""Checks of what goes into `Rollouts`: each refuses with the row and the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stepcredit._moved import renamed
from stepcredit.data.containers import array_like, integers_of, is_numeric, vector_of
from stepcredit.data.forest import last_values, row_index, to_packed
from stepcredit.data.masking import (
    row_tokens_to_trained,
    step_ends_to_trained,
    stream_to_trained,
)
from stepcredit.data.packing import (
    Rows,
    check_float32,
    items_of,
    mask_rows,
    pack_numbers,
    pack_rows,
    trained_of,
)
from stepcredit.data.rules import (
    NAME_TAKEN,
    NO_TRAINED_TOKEN,
    PARTLY_UNKNOWN,
    RESERVED_NAMES,
    shown,
    wrong_last_end,
)
from stepcredit.data.streams import Steps, Stream, Tokens, check_increasing
from stepcredit.errors import RolloutError

Process = Stream | Mapping[str, Stream]
Scalars = Sequence[float | None] | Tensor | np.ndarray
Value = TypeVar("Value")
Packed = TypeVar("Packed", bound=Stream)
LOGPROBS = ("student", "teacher", "base", "prm", "ref")


@dataclass(frozen=True, eq=False)
class RolloutValues:
    """One number per rollout, such as the outcome; 0 where it is not known."""

    values: Float[Tensor, " rollout"]
    known: Bool[Tensor, " rollout"]

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
        return _integer_groups(integers_of(group, "group").cpu().numpy())
    index: dict[str, int] = {}
    labels: list[str | int] = []
    rows = []
    for row, label in enumerate(items_of(group, "group", "one label per rollout")):
        if not isinstance(label, str | int | np.integer) or isinstance(label, bool):
            reason = f"{shown(label)} is neither a string nor an integer"
            raise RolloutError(reason, row=row, field="group")
        if str(label) not in index:
            index[str(label)] = len(labels)
            labels.append(str(label) if isinstance(label, str) else int(label))
        rows.append(index[str(label)])
    return labels, torch.tensor(rows, dtype=torch.int64, device="cpu")


def _integer_groups(group: np.ndarray) -> tuple[list[str | int], Tensor]:
    if group.ndim != 1:
        raise RolloutError(f"shape is {group.shape}, expected (rollouts,)", field="group")
    if bool((group[1:] >= group[:-1]).all()):
        new = np.append(True, group[1:] != group[:-1])[: group.size]
        return group[new].tolist(), torch.from_numpy(new.cumsum() - 1)
    unique, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return unique[order].tolist(), torch.from_numpy(rank[inverse.reshape(-1)])


@dataclass(frozen=True, eq=False)
class BatchStreams:
    """A batch's token-level arguments: each implies how many tokens a rollout has.

    Args:
        streams: process streams by name.
        logprobs: log-probs by model.
        step_ends: step ends without scores; its `values` are the ends.
        tokens: the tokens' texts, rollout by rollout.
    """

    streams: dict[str, Stream]
    logprobs: dict[str, Tokens]
    step_ends: Stream | None = None
    tokens: list[list[str]] | None = None

    def row_counts(self) -> dict[str, int]:
        """For how many rollouts each of them has a row."""
        rows = {name: stream.counts.numel() for name, stream in self._packed().items()}
        return rows if self.tokens is None else rows | {"tokens": len(self.tokens)}

    def implied_lengths(self) -> dict[str, Int[Tensor, " rollout"]]:
        """Tokens per rollout that each of them implies; 0 where it has no value for the rollout."""
        lengths = {name: implied_length(stream) for name, stream in self._packed().items()}
        if self.step_ends is not None:
            lengths["step_ends"] = last_values(self.step_ends.values, self.step_ends.counts, -1) + 1
        if self.tokens is not None:
            texts = [len(row) for row in self.tokens]
            lengths["tokens"] = torch.tensor(texts, dtype=torch.int64, device="cpu")
        return lengths

    def has_step_ends(self, name: str) -> bool:
        """Whether the argument of this name implies a length by where its last step ends."""
        return name == "step_ends" or isinstance(self.streams.get(name), Steps)

    def _packed(self) -> dict[str, Stream]:
        probs = {f"{name}_logprobs": stream for name, stream in self.logprobs.items()}
        ends = {} if self.step_ends is None else {"step_ends": self.step_ends}
        return {**self.streams, **probs, **ends}

    @property
    def device(self) -> torch.device:
        """The first accelerator that holds one of the streams, else the CPU."""
        devices = [stream.values.device for stream in self._packed().values()]
        return next((d for d in devices if d.type != "cpu"), torch.device("cpu"))

    def device_beside(self, mask: Any) -> torch.device:
        """Where the batch is if it has this mask: the mask's device counts where it is a tensor."""
        if self.device.type == "cpu" and isinstance(mask, Tensor):
            return mask.device
        return self.device

    def on(self, device: torch.device) -> BatchStreams:
        """The same streams, all on one device."""
        ends = self.step_ends
        return BatchStreams(
            {name: stream_on(stream, device) for name, stream in self.streams.items()},
            {name: stream_on(stream, device) for name, stream in self.logprobs.items()},
            None if ends is None else stream_on(ends, device),
            self.tokens,
        )

    def to_trained(self, trained: Bool[Tensor, "rollout token"]) -> BatchStreams:
        """These streams, changed from response tokens to trained tokens.

        Args:
            trained: True on the tokens that are trained, on the streams' device.
        """
        ends, tokens = self.step_ends, self.tokens
        if tokens is not None:
            flags = trained.tolist()
            tokens = [row_tokens_to_trained(*row) for row in zip(tokens, flags, strict=True)]
        return BatchStreams(
            {name: stream_to_trained(stream, trained) for name, stream in self.streams.items()},
            {name: stream_to_trained(stream, trained) for name, stream in self.logprobs.items()},
            None if ends is None else step_ends_to_trained(ends, trained),
            tokens,
        )

    def num_steps(self) -> int:
        """Scored steps of all rollouts and streams."""
        steps = [s.values.numel() for s in self.streams.values() if isinstance(s, Steps)]
        return sum(steps)


def response_mask(mask: Any, count: int, given: BatchStreams) -> Stream:
    """Which tokens of each response are trained, packed: `values` are flags, one per token.

    Args:
        mask: a list with one row of flags per response, one flag per token; or a (rollout, token)
            tensor or array, which may be padded on the right.
        count: rollouts there are.
        given: the batch's streams over response tokens. They show where a padded row ends; a row
            without streams ends with its last trained token.

    Raises:
        RolloutError: a response without a trained token, or a stream that does not fit the mask.
    """
    mask = array_like(mask, "mask")
    if is_numeric(mask):
        trained = trained_of(mask).to(given.device)
        _check_mask(trained.any(1), count)
        values, counts = _without_padding(trained, given)
    else:
        values, counts = (packed.to(given.device) for packed in mask_rows(mask))
        _check_mask(_any_of_rows(values, counts), count)
    check_fit(counts, given, "tokens")
    return Stream._of(values=values, counts=counts)


def _check_mask(has_trained: Bool[Tensor, " row"], count: int) -> None:
    """A mask has one row per rollout, and trains a token of each."""
    if has_trained.numel() != count:
        raise RolloutError(f"{has_trained.numel()} rows, but {count} rollouts", field="mask")
    if not bool(has_trained.all()):
        raise RolloutError(NO_TRAINED_TOKEN, row=int((~has_trained).nonzero()[0]), field="mask")


def _any_of_rows(
    flags: Bool[Tensor, " token"], counts: Int[Tensor, " row"]
) -> Bool[Tensor, " row"]:
    """Whether any of a row's packed flags is set."""
    if bool(flags.all()):
        return counts > 0
    return row_index(counts)[flags].bincount(minlength=counts.numel()) > 0


def _without_padding(
    trained: Bool[Tensor, "rollout token"], given: BatchStreams
) -> tuple[Bool[Tensor, " token"], Int[Tensor, " rollout"]]:
    """A padded mask as packed flags, and tokens per response."""
    columns = torch.arange(1, trained.shape[1] + 1, device=trained.device)
    last_trained = (trained * columns).amax(1)
    size = _implied_size(len(trained), given)
    size = torch.where(size == 0, last_trained, size)
    outside = ((size > trained.shape[1]) | (size < last_trained)).nonzero()
    if outside.numel():
        row = int(outside[0])
        width, last = trained.shape[1], int(last_trained[row]) - 1
        reason = f"{width} tokens, the last trained one at {last}, but the streams have "
        raise RolloutError(f"{reason}{int(size[row])} tokens", row=row, field="mask")
    return to_packed(trained, size), size


def stream_on(stream: Packed, device: torch.device) -> Packed:
    """The stream on a device: itself where it is there."""
    return stream if stream.values.device == device else stream.to(device)


def check_row_counts(count: int, streams: BatchStreams) -> None:
    """Every argument has one row per rollout."""
    if count == 0:
        raise RolloutError("there are no rollouts", field="group")
    for name, number in streams.row_counts().items():
        if number != count:
            raise RolloutError(f"{number} rows, but {count} rollouts", field=name)


def trained_lengths(
    given: Sequence[int] | Tensor | np.ndarray | None, count: int, streams: BatchStreams
) -> Int[Tensor, " rollout"]:
    """Trained tokens per rollout: as given, or the most that any of the streams implies."""
    if given is None:
        size = _implied_size(count, streams)
    else:
        size = _given_lengths(given, count).to(streams.device)
    if bool((size < 1).any()):
        row = int((size < 1).nonzero()[0])
        raise RolloutError(NO_TRAINED_TOKEN, row=row, field="length")
    return size


def check_lengths(
    given: Sequence[int] | Tensor | np.ndarray | None, trained: Int[Tensor, " rollout"]
) -> None:
    """Lengths that are given with a mask must equal its numbers of trained tokens."""
    if given is None:
        return
    size = _given_lengths(given, trained.numel()).to(trained.device)
    wrong = (size != trained).nonzero()
    if wrong.numel():
        row = int(wrong[0])
        reason = f"{int(size[row])}, but the mask trains {int(trained[row])} tokens"
        raise RolloutError(reason, row=row, field="length")


def _implied_size(count: int, streams: BatchStreams) -> Int[Tensor, " rollout"]:
    """The most tokens that any of the streams implies, 0 where none has a value."""
    size = torch.zeros(count, dtype=torch.int64, device=streams.device)
    for implied in streams.implied_lengths().values():
        size = torch.maximum(size, implied.to(size.device))
    return size


def _given_lengths(given: Sequence[int] | Tensor | np.ndarray, count: int) -> Tensor:
    given = array_like(given, "lengths")
    if is_numeric(given):
        size = integers_of(vector_of(given, "lengths"), "lengths")
    else:
        values = items_of(given, "lengths", "one integer per rollout")
        size, _ = pack_rows([[value] for value in values], None, "lengths", torch.int64)
    if size.numel() != count:
        raise RolloutError(f"{size.numel()} lengths, but {count} rollouts", field="lengths")
    return size


def implied_length(stream: Stream) -> Int[Tensor, " rollout"]:
    """Tokens per rollout that a stream implies; 0 for a rollout without a value."""
    if isinstance(stream, Steps):
        return last_values(stream.ends, stream.counts, -1) + 1
    return stream.counts


def check_fit(
    size: Int[Tensor, " rollout"], streams: BatchStreams, kind: str = "trained tokens"
) -> None:
    """Every stream of a rollout must cover exactly the rollout's tokens.

    Args:
        size: tokens per rollout.
        streams: what must fit.
        kind: which tokens `size` counts, for the message.
    """
    for name, implied in streams.implied_lengths().items():
        implied = implied.to(size.device)
        bad = (implied != size) & (implied != 0)
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            had, want = int(implied[row]), int(size[row])
            reason = f"{had} values, but {want} {kind}"
            if streams.has_step_ends(name):
                reason = wrong_last_end(had - 1, want - 1)
            raise RolloutError(reason, row=row, field=name)


def rollout_values(given: Scalars | None, group: Tensor, groups: int, field: str) -> RolloutValues:
    """One number per rollout, known for all of a group or for none of it.

    None in a list, and a masked value of an array, is unknown.
    """
    if given is None:
        values = torch.zeros(group.numel(), dtype=torch.float64, device=group.device)
        return RolloutValues(values, torch.zeros_like(values, dtype=torch.bool))
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
    check_float32(values, torch.ones_like(group), field)
    _check_whole_groups(known, group, groups, field)
    return RolloutValues(values, known)


def _masked_as_none(given: np.ndarray) -> Any:
    """An array with masked values, or of Python objects, as a list: a masked value is None."""
    return given.tolist() if np.ma.is_masked(given) or given.dtype == object else given


def _check_whole_groups(known: Tensor, group: Tensor, groups: int, field: str) -> None:
    if bool(known.all()) or not bool(known.any()):
        return
    some = torch.zeros(groups, dtype=torch.bool, device=group.device)
    some[group[known]] = True
    bad = some[group] & ~known
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
