"""Step-labelled rows, for training a process reward model and judging any signal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from stepcredit.errors import StepCreditError
from stepcredit.keys import digest64
from stepcredit.signals.responses import Response

RIGHT, WRONG = 1, 0
DELIMITER = "\n\n"
TEST, VALIDATION, TRAIN = "test", "validation", "train"


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """One solution whose steps were judged right or wrong.

    Args:
        question: the problem, as a process reward model reads it.
        steps: the solution's steps, without space around them; at least one.
        labels: one per step: 1 right, 0 wrong, None unknown (neither trained on nor judged).
        source: FILE:LINE.
        key: identifies the question; rows with the same key are always in the same part.

    Example:
        >>> row = LabelledRow("1 + 1?", ("1 + 1 = 3", "So 3."), (0, None), "rows.jsonl:1", "1 + 1?")
        >>> row.first_error, row.is_judgeable
        (0, True)
    """

    question: str
    steps: tuple[str, ...]
    labels: tuple[int | None, ...]
    source: str
    key: str

    @property
    def first_error(self) -> int | None:
        """Index of the first step labelled wrong; None where no step is."""
        return self.labels.index(WRONG) if WRONG in self.labels else None

    @property
    def is_judgeable(self) -> bool:
        """Whether the labels show which step is the first error, or that there is none."""
        return None not in self.labels[: self.first_error]

    @property
    def response(self) -> Response:
        """The solution as a response: steps end in a blank line, tokens are words.

        Example:
            >>> row = LabelledRow("1 + 1?", ("1 + 1 = 3", "So 3."), (0, None), "r.jsonl:1", "1")
            >>> row.response.step_ends
            [4, 6]
        """
        pieces = [step + DELIMITER for step in self.steps[:-1]] + [self.steps[-1]]
        ends = tuple(accumulate(map(len, pieces)))
        return Response.of_text(self.question, "".join(pieces), steps=ends, name=self.source)


def question_key(text: str) -> str:
    """The question in lower case, with each run of space as one space.

    Example:
        >>> question_key("How  many?\\n") == question_key("how many?")
        True
    """
    return " ".join(text.split()).casefold()


def masked_after_error(row: LabelledRow) -> tuple[int | None, ...]:
    """The labels up to the first error, None after it.

    Example:
        >>> row = LabelledRow("?", ("a", "b", "c"), (1, 0, 1), "r.jsonl:1", "?")
        >>> masked_after_error(row)
        (1, 0, None)
    """
    if row.first_error is None:
        return row.labels
    kept = row.first_error + 1
    return row.labels[:kept] + (None,) * (len(row.labels) - kept)


def part_of(key: str, *, seed: int, test: float, validation: float) -> str:
    """The part to which a question belongs: `test`, `validation` or `train`.

        u = first 8 bytes of BLAKE2b(seed, key) / 2^64;  test if u < test, validation if u < test +
        validation, else train

    A question keeps its part on every machine, even if other rows are added or removed.

    Args:
        key: the question's key.
        seed: seed of the split.
        test, validation: expected shares, in [0, 1], together at most 1.

    Example:
        >>> part_of("how many?", seed=0, test=1.0, validation=0.0)
        'test'
    """
    u = digest64(f"{seed}\x1f{key}") / 2**64
    if u < test:
        return TEST
    return VALIDATION if u < test + validation else TRAIN


@dataclass(frozen=True)
class Parts:
    """Rows by part; each question is in one part only."""

    train: list[LabelledRow]
    validation: list[LabelledRow]
    test: list[LabelledRow]


def split_by_question(
    rows: Iterable[LabelledRow], *, seed: int = 0, test: float = 0.2, validation: float = 0.1
) -> Parts:
    """Rows for training, for choosing a threshold, and for the figures, split by question.

    Args:
        rows: labelled rows.
        seed: seed of the split.
        test, validation: expected shares of the questions, in [0, 1], together at most 1.

    Returns:
        `Parts`, each in the rows' order. A part may be empty.

    Raises:
        StepCreditError: a share is out of range.

    Example:
        >>> row = LabelledRow("?", ("a",), (1,), "r.jsonl:1", "?")
        >>> len(split_by_question([row, row], test=0.0, validation=0.0).train)
        2
    """
    if not (test >= 0 and validation >= 0 and test + validation <= 1):
        reason = f"expected shares of together at most 1, got {test} and {validation}"
        raise StepCreditError(reason, field="test and validation")
    parts: dict[str, list[LabelledRow]] = {TRAIN: [], VALIDATION: [], TEST: []}
    for row in rows:
        parts[part_of(row.key, seed=seed, test=test, validation=validation)].append(row)
    return Parts(**parts)


def row_counts(rows: Sequence[LabelledRow]) -> dict[str, int]:
    """How many rows, questions, labelled steps and wrong steps there are."""
    labels = [label for row in rows for label in row.labels if label is not None]
    return {
        "rows": len(rows),
        "questions": len({row.key for row in rows}),
        "steps": len(labels),
        "wrong_steps": labels.count(WRONG),
    }
