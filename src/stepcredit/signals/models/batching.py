"""Sequences of like length together, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Sequence


def length_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices in batches whose padded size stays within a bound, the longest first.

        len(batch) * max(lengths of batch) <= max_tokens

    Args:
        lengths: tokens a sequence.
        max_tokens: bound of a batch's padded tokens; a sequence longer than it is alone.

    Returns:
        Every index once.

    Example:
        >>> length_batches([3, 9, 4, 8], max_tokens=18)
        [[1, 3], [2, 0]]
    """
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or (len(batches[-1]) + 1) * width > max_tokens:
            batches.append([])
            width = lengths[index]
        batches[-1].append(index)
    return batches
