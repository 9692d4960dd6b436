"""Batches of sequences of similar length, so that they need little padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

import torch
from torch import Tensor

MAX_PADDING = 256
"""The most padding in a batch that is scored, in tokens. A forward pass over it would take longer
than one more forward pass does (measured on a CPU, not on a GPU)."""


def length_batches(
    lengths: Sequence[int], max_tokens: int, max_padding: float = inf
) -> list[list[int]]:
    """Indices in batches whose padded size stays within a bound, the longest first.

        len(batch) * max(lengths of batch) <= max_tokens
        len(batch) * max(lengths of batch) - sum(lengths of batch) <= max_padding

    Args:
        lengths: tokens per sequence.
        max_tokens: the most tokens in a batch, padding included; a longer sequence is
            alone in its batch.
        max_padding: the most padding in a batch, in tokens.

    Returns:
        Every index once.

    Example:
        >>> length_batches([3, 9, 4, 8], max_tokens=18)
        [[1, 3], [2, 0]]
        >>> length_batches([3, 9, 4, 8], max_tokens=100, max_padding=2)
        [[1, 3], [2, 0]]
    """
    batches: list[list[int]] = []
    width = padding = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        padding += width - lengths[index]
        is_over = not batches or (len(batches[-1]) + 1) * width > max_tokens
        if is_over or padding > max_padding:
            batches.append([])
            width, padding = lengths[index], 0
        batches[-1].append(index)
    return batches


def padded(rows: Sequence[Sequence[int]], fill: int = 0, *, left: bool = False) -> Tensor:
    """Rows of different lengths as one tensor.

    Args:
        rows: at least one.
        fill: the value of the padding.
        left: whether the padding stands before each row; else after it.

    Returns:
        (row, width), int64, where width is the longest row's length.

    Example:
        >>> padded([[7, 8], [9]], fill=-1).tolist(), padded([[7, 8], [9]], left=True).tolist()
        ([[7, 8], [9, -1]], [[7, 8], [0, 9]])
    """
    width = max(map(len, rows))
    filled = torch.full((len(rows), width), fill, dtype=torch.long)
    for index, row in enumerate(rows):
        start = width - len(row) if left else 0
        filled[index, start : start + len(row)] = torch.tensor(row, dtype=torch.long)
    return filled


def padded_ids(
    rows: Sequence[Sequence[int]], device: torch.device | str = "cpu", *, left: bool = False
) -> dict[str, Tensor]:
    """Token ids as a model's forward takes them.

    Args:
        rows: token ids, at least one row.
        device: where the tensors go.
        left: as in `padded`.

    Returns:
        `input_ids`, padded with 0, and `attention_mask`, 1 at tokens and 0 at padding: each
        (row, width), int64.

    Example:
        >>> padded_ids([[7, 8], [9]])["attention_mask"].tolist()
        [[1, 1], [1, 0]]
    """
    mask = padded([[1] * len(row) for row in rows], left=left)
    return {
        "input_ids": padded(rows, left=left).to(device),
        "attention_mask": mask.to(device),
    }


def reads_left_to_right(states: Callable[[Tensor], Tensor], num_tokens: int) -> bool:
    """Whether a model's states depend on no later token, tried on a few ids.

    Such a model needs no mask for padding on the right. Without a mask, attention leaves out what
    comes later, and long inputs take much less time.

    Args:
        states: the model, from ids (1, width) to states (1, width, ...), without a mask.
        num_tokens: how many ids the model has.

    Example:
        >>> reads_left_to_right(lambda ids: ids.cumsum(1), num_tokens=9)
        True
        >>> reads_left_to_right(lambda ids: ids - ids.sum(1), num_tokens=9)
        False
    """
    ids = torch.arange(4)[None] % num_tokens
    changed = ids.clone()
    changed[0, -1] = (ids[0, -1] + 1) % num_tokens
    return torch.equal(states(ids)[:, :-1], states(changed)[:, :-1])
