"""A batch's token-level arguments, which must agree on how many tokens each rollout has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stepcredit.data.containers import array_like, integers_of, is_numeric, vector_of
from stepcredit.data.forest import all_true, last_values, to_dense, to_packed, true_counts
from stepcredit.data.masking import row_tokens_to_trained, step_ends_to_trained, stream_to_trained
from stepcredit.data.packing import items_of, mask_rows, pack_rows, trained_of
from stepcredit.data.rules import NO_TRAINED_TOKEN, wrong_last_end
from stepcredit.data.states import FIELD as STATES
from stepcredit.data.states import StepStates
from stepcredit.data.streams import Steps, Stream, Tokens
from stepcredit.errors import RolloutError

Packed = TypeVar("Packed", bound=Stream)


@dataclass(frozen=True, eq=False)
class BatchStreams:
    """A batch's token-level arguments: each implies how many tokens a rollout has.

    Args:
        streams: process streams by name.
        logprobs: log-probs by model.
        step_ends: step ends without scores; its `values` are the ends.
        tokens: the tokens' texts, rollout by rollout.
        states: the states of the steps, numbered.
    """

    streams: dict[str, Stream]
    logprobs: dict[str, Tokens]
    step_ends: Stream | None = None
    tokens: list[list[str]] | None = None
    states: StepStates | None = None

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

    def value_counts(self) -> dict[str, Int[Tensor, " rollout"]]:
        """How many values each of them has for each rollout."""
        counts = {name: stream.counts for name, stream in self._packed().items()}
        if self.states is not None:
            counts[STATES] = self.states.counts
        if self.tokens is not None:
            texts = [len(row) for row in self.tokens]
            counts["tokens"] = torch.tensor(texts, dtype=torch.int64, device="cpu")
        return counts

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

    def steps(self) -> Stream | None:
        """The steps that `step_states` are of, `values` their ends.

        They are those of `step_ends`, of the process stream named "process", or of the only stream
        of steps; None where there are several others, or none.
        """
        if self.step_ends is not None:
            return self.step_ends
        of_steps = {name: s for name, s in self.streams.items() if isinstance(s, Steps)}
        only = next(iter(of_steps.values())) if len(of_steps) == 1 else None
        steps = of_steps.get("process", only)
        return None if steps is None else Stream._of(values=steps.ends, counts=steps.counts)

    def on(self, device: torch.device) -> BatchStreams:
        """The same streams, all on one device."""
        ends, states = self.step_ends, self.states
        return BatchStreams(
            {name: stream_on(stream, device) for name, stream in self.streams.items()},
            {name: stream_on(stream, device) for name, stream in self.logprobs.items()},
            None if ends is None else stream_on(ends, device),
            self.tokens,
            None if states is None else stream_on(states, device),
        )

    def to_trained(self, trained: Bool[Tensor, "rollout token"]) -> BatchStreams:
        """These streams, changed from response tokens to trained tokens.

        Args:
            trained: True on the tokens that are trained, on the streams' device.
        """
        ends, tokens, states = self.step_ends, self.tokens, self.states
        if tokens is not None:
            flags = trained.tolist()
            tokens = [row_tokens_to_trained(*row) for row in zip(tokens, flags, strict=True)]
        return BatchStreams(
            {name: stream_to_trained(stream, trained) for name, stream in self.streams.items()},
            {name: stream_to_trained(stream, trained) for name, stream in self.logprobs.items()},
            None if ends is None else step_ends_to_trained(ends, trained),
            tokens,
            None if states is None else stream_to_trained(states, trained),
        )

    def num_steps(self) -> int:
        """Scored steps of all rollouts and streams; without such, the steps with a state."""
        steps = [s.values.numel() for s in self.streams.values() if isinstance(s, Steps)]
        if not steps and self.states is not None:
            return self.states.ends.numel()
        return sum(steps)


def stream_on(stream: Packed, device: torch.device) -> Packed:
    """The stream on a device: itself where it is there."""
    return stream if stream.values.device == device else stream.to(device)


def implied_length(stream: Stream) -> Int[Tensor, " rollout"]:
    """Tokens per rollout that a stream implies; 0 for a rollout without a value."""
    if isinstance(stream, Steps):
        return last_values(stream.ends, stream.counts, -1) + 1
    return stream.counts


def check_row_counts(count: int, streams: BatchStreams) -> None:
    """Every argument has one row per rollout."""
    if count == 0:
        raise RolloutError("there are no rollouts", field="group")
    for name, number in streams.row_counts().items():
        if number != count:
            raise RolloutError(f"{number} rows, but {count} rollouts", field=name)


def check_fit(
    size: Int[Tensor, " rollout"], streams: BatchStreams, kind: str = "trained tokens"
) -> None:
    """Every stream of a rollout must cover exactly the rollout's tokens.

    Args:
        size: tokens per rollout.
        streams: what must fit.
        kind: which tokens `size` counts, for the message.
    """
    for name, length in streams.implied_lengths().items():
        implied = length.to(size.device)
        if torch.equal(implied, size):
            continue
        bad = ((implied != size) & (implied != 0)).nonzero()
        if bad.numel():
            row = int(bad[0])
            had, want = int(implied[row]), int(size[row])
            reason = f"{had} values, but {want} {kind}"
            if streams.has_step_ends(name):
                reason = wrong_last_end(had - 1, want - 1)
            raise RolloutError(reason, row=row, field=name)


def trained_lengths(
    given: Sequence[int] | Tensor | np.ndarray | None, count: int, streams: BatchStreams
) -> Int[Tensor, " rollout"]:
    """Trained tokens per rollout: as given, or the most that any of the streams implies."""
    if given is None:
        size = _implied_size(count, streams)
    else:
        size = _given_lengths(given, count).to(streams.device)
    if int(size.min()) < 1:
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
    if all_true(flags):
        return counts > 0
    return true_counts(to_dense(flags, counts)) > 0


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
