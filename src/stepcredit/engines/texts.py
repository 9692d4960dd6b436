"""What responses say, as metrics read it: of the trained tokens alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepcredit.credit.metrics_texts import cut_steps
from stepcredit.data.streams import Stream


def decoded(
    tokenizer: Any, ids: Sequence[Sequence[int]], ends: Stream | None
) -> tuple[list[str], list[list[str]] | None]:
    """The responses' texts and their steps', special tokens left out.

    Args:
        tokenizer: the policy's.
        ids: trained tokens of each response.
        ends: each step's last of them, if anything tells steps.
    """
    texts = tokenizer.batch_decode(list(map(list, ids)), skip_special_tokens=True)
    if ends is None:
        return texts, None
    cut = cut_steps(ids, ends)
    every = [list(step) for row in cut for step in row]
    following = iter(tokenizer.batch_decode(every, skip_special_tokens=True))
    return texts, [[next(following) for _ in row] for row in cut]
