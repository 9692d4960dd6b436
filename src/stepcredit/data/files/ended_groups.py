"""The labels of a file's ended groups, in a few bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np

_RECENT, _MERGED = 1 << 15, 8


class EndedGroups:
    """A set of labels that takes 8 bytes of memory per label, beyond the first 32,768.

    It keeps 64 bits of each label. In one of about 30 million sets of a million labels, two share
    these bits: a label that was never added is then said to be in the set.

    Example:
        >>> ended = EndedGroups()
        >>> ended.add("prompt-1")
        >>> "prompt-1" in ended, "prompt-2" in ended
        (True, False)
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._blocks: list[array[int]] = []

    def __contains__(self, label: str) -> bool:
        key = hash(label)
        return key in self._recent or any(_holds(block, key) for block in self._blocks)

    def add(self, label: str) -> None:
        """Add a label."""
        self._recent.add(hash(label))
        if len(self._recent) == _RECENT:
            self._pack()

    def _pack(self) -> None:
        """Sort the recent labels into a block, and merge blocks up to 8 times its size with it.

        There are thus few blocks to search, and a label is moved a few times only.
        """
        block = array("q", self._recent)
        self._recent = set()
        while self._blocks and len(self._blocks[-1]) <= _MERGED * len(block):
            block.extend(self._blocks.pop())
        np.frombuffer(block, np.int64).sort()
        self._blocks.append(block)


def _holds(block: array[int], key: int) -> bool:
    at = bisect_left(block, key)
    return at < len(block) and block[at] == key
