"""Training examples from labelled rows: tokens, and a class where each labelled step is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from stepcredit.errors import RolloutError
from stepcredit.prm.labelled.labelled_rows import LabelledRow, masked_after_error
from stepcredit.prm.model_input import ModelInput
from stepcredit.prm.protocol import Protocol
from stepcredit.signals.models.batching import length_batches, padded, padded_ids

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """One solution to train on.

    Args:
        ids: the model's tokens, question included.
        classes: one per token: 0 or 1 where a labelled step is read, -100 elsewhere.
    """

    ids: list[int]
    classes: list[int]


@dataclass(frozen=True)
class Fitted:
    """Rows that fit a length, each with its model input.

    Args:
        rows: whole, or cut to the steps that fit.
        inputs: one per row.
        cut: rows that lost steps.
        dropped: rows left out because none of their labelled steps fits.
    """

    rows: list[LabelledRow]
    inputs: list[ModelInput]
    cut: int = 0
    dropped: int = 0


def fit_to_length(
    rows: Sequence[LabelledRow],
    protocol: Protocol,
    tokenizer: Any,
    limit: int | None,
    overlong: str = "refuse",
) -> Fitted:
    """Rows in a protocol's layout, none longer than a limit.

    Args:
        rows: labelled rows; those without any label are left out.
        protocol: where a step is read.
        tokenizer: the reward model's.
        limit: most tokens of a solution with its question; None for no limit.
        overlong: `refuse` longer solutions, or `cut` them after the last step that fits.

    Raises:
        RolloutError: a solution is longer; the message begins with its FILE:LINE.
    """
    kept: list[LabelledRow] = []
    inputs: list[ModelInput] = []
    cut = dropped = 0
    for row in rows:
        model_input = protocol.encode(tokenizer, row.question, row.steps)
        if limit is not None and len(model_input.ids) > limit:
            if overlong == "refuse":
                reason = f"is {len(model_input.ids)} tokens with its question, more than {limit}"
                raise RolloutError(reason, field="steps", place=row.source)
            cut += 1
            row, model_input = _cut(row, model_input, limit)
        if all(label is None for label in row.labels):
            dropped += 1
            continue
        kept.append(row)
        inputs.append(model_input)
    return Fitted(kept, inputs, cut, dropped)


def _cut(row: LabelledRow, model_input: ModelInput, limit: int) -> tuple[LabelledRow, ModelInput]:
    """The row, cut to the steps that are read within the limit."""
    positions = [position for position in model_input.positions if position < limit]
    steps, labels = row.steps[: len(positions)], row.labels[: len(positions)]
    ids = model_input.ids[: positions[-1] + 1] if positions else []
    return replace(row, steps=steps, labels=labels), ModelInput(ids, positions)


def examples_of(fitted: Fitted, right_class: int, *, mask_after_error: bool) -> list[Example]:
    """Training examples: a class at the token where each labelled step is read, and nowhere else.

    Example:
        >>> row = LabelledRow("?", ("a", "b", "c"), (1, 0, 0), "r.jsonl:1", "?")
        >>> fitted = Fitted([row], [ModelInput([9, 5, 1, 6, 1, 7, 1], [2, 4, 6])])
        >>> examples_of(fitted, 1, mask_after_error=True)[0].classes
        [-100, -100, 1, -100, 0, -100, -100]
    """
    examples = []
    for row, model_input in zip(fitted.rows, fitted.inputs, strict=True):
        classes = [IGNORED] * len(model_input.ids)
        labels = masked_after_error(row) if mask_after_error else row.labels
        for position, label in zip(model_input.positions, labels, strict=True):
            if label is not None:
                classes[position] = right_class if label else 1 - right_class
        examples.append(Example(model_input.ids, classes))
    return examples


def batched(examples: Sequence[Example], max_tokens: int) -> list[list[Example]]:
    """Batches of examples of similar length, each of at most `max_tokens` tokens with padding."""
    lengths = [len(example.ids) for example in examples]
    return [[examples[i] for i in batch] for batch in length_batches(lengths, max_tokens)]


def collated(batch: Sequence[Example]) -> dict[str, Tensor]:
    """One batch as tensors (solution, token), padded on the right.

    Example:
        >>> collated([Example([7, 8], [-100, 1]), Example([9], [0])])["labels"].tolist()
        [[-100, 1], [0, -100]]
    """
    labels = padded([example.classes for example in batch], fill=IGNORED)
    return {**padded_ids([example.ids for example in batch]), "labels": labels}
