"""What the completions say, as the metrics and chunkers of text read it: trained tokens alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

import stepcredit as sc
from stepcredit.data.masking import row_tokens_to_trained, turn_ends
from stepcredit.data.streams import Stream
from stepcredit.engines import texts as shared
from stepcredit.engines.trl.distributed import Streams
from stepcredit.engines.trl.responses import Asked
from stepcredit.engines.trl.signal_streams import streams_of
from stepcredit.signals.splitting import Turns


def decoded(
    asked: Asked, present: Tensor, process: Streams, ends: Stream | None
) -> tuple[list[str], list[list[str]] | None]:
    """The responses' texts and their steps', special tokens left out.

    Args:
        asked: the batch.
        present: (completion, token) bool, True on the model's own tokens.
        process: its process streams; the first that has steps tells them.
        ends: where they end, if no stream has steps.

    Returns:
        A text a response, and a text a step; None where nothing tells steps.
    """
    ids = [
        row_tokens_to_trained(list(row), flags)
        for row, flags in zip(asked.sampled.completion_ids, present.tolist(), strict=True)
    ]
    streams = process.values() if isinstance(process, Mapping) else [process]
    for stream in streams:
        if isinstance(stream, sc.Steps):
            ends = Stream._of(values=stream.ends, counts=stream.counts)
            break
    return shared.decode_with_steps(asked.tokenizer, ids, ends)


def step_ends_of(asked: Asked, estimator: sc.Estimator, present: Tensor) -> Stream | None:
    """Where steps end, for streams without ends of their own: turns, or the chunks `steps`.

    Args:
        asked: the batch.
        estimator: whose chunks may be the steps.
        present: (completion, token) bool, True on the model's own tokens.

    Returns:
        The steps' last tokens over the model's own; None where nothing asks for them.
    """
    if isinstance(asked.splitter, Turns):
        return turn_ends(present)
    if not estimator.reads.steps:
        return None
    ends = [response.step_ends for response in asked.responses]
    cut: sc.Steps = streams_of(sc.Steps(ends, [[0.0] * len(row) for row in ends]), present)
    return Stream._of(values=cut.ends, counts=cut.counts)


def token_texts(asked: Asked, estimator: sc.Estimator, present: Tensor) -> list[list[str]] | None:
    """The trained tokens' texts, where the estimator's chunks are cut by text."""
    if not estimator.reads.text:
        return None
    return shared.trained_texts(asked.responses, present.tolist())


def truncated_rows(ids: Sequence[Sequence[int]], ending: Sequence[int]) -> list[bool]:
    """Which completions do not end with a token that ends one, as TRL tells them.

    Example:
        >>> truncated_rows([[5, 0], [5, 6]], ending=[0])
        [False, True]
    """
    return [row[-1] not in ending for row in ids]
