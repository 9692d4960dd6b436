"""What every format of step labels gives, and how fields of a row are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from stepcredit.errors import RolloutError
from stepcredit.prm.labelled.labelled_rows import RIGHT, WRONG
from stepcredit.settings.fields import check_fields, choice, flag

NEUTRAL = {"right": RIGHT, "wrong": WRONG, "ignore": None}
VERDICTS = {"+": RIGHT, "-": WRONG}
RATINGS = (-1, 0, 1, None)


@dataclass(frozen=True)
class LabelOptions:
    """How labels are read where a format leaves a choice.

    Args:
        neutral: what PRM800K's rating 0 counts as ("not incorrect, but no progress").
        alternatives: for PRM800K, also read each rated step that was not taken, as a separate row
            in which only that step is labelled.
        originals: for PRMBench, also read the unmodified solution (all steps right), once per
            question.
    """

    neutral: str = choice("right", tuple(NEUTRAL), "what PRM800K's rating 0 counts as")
    alternatives: bool = flag(False, "PRM800K: steps that were not taken, too")
    originals: bool = flag(True, "PRMBench: the unmodified solutions, too")

    def __post_init__(self) -> None:
        check_fields(self)


class Labelled(NamedTuple):
    """A row of a file before it has a source; with `once`, only the first row of a key is kept."""

    question: str
    steps: list[str]
    labels: list[int | None]
    key: str
    once: bool = False


def label_of_rating(rating: Any, options: LabelOptions, field: str) -> int | None:
    """The label that a rating of PRM800K stands for: 1 right, -1 wrong, 0 as the options say.

    Raises:
        RolloutError: any other rating, under the given field.
    """
    if rating not in RATINGS or isinstance(rating, bool | float):
        raise RolloutError(f"expected -1, 0, 1 or null, got {rating!r}", field=field)
    return {1: RIGHT, -1: WRONG, 0: NEUTRAL[options.neutral], None: None}[rating]


def object_in(row: Any, field: str, within: str = "") -> dict[str, Any]:
    """An object in a row, or an error that names the field."""
    value = row.get(field) if isinstance(row, dict) else None
    if not isinstance(value, dict):
        raise RolloutError(f"expected an object, got {value!r:.60}", field=_named(within, field))
    return value


def list_in(row: Any, field: str, within: str = "") -> list[Any]:
    """A list in a row, or an error that names the field."""
    value = row.get(field) if isinstance(row, dict) else None
    if not isinstance(value, list):
        raise RolloutError(f"expected a list, got {value!r:.60}", field=_named(within, field))
    return value


def text_in(row: Any, field: str, within: str = "") -> str:
    """A string in a row, or an error that names the field."""
    value = row.get(field) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise RolloutError(f"expected a string, got {value!r:.60}", field=_named(within, field))
    return value


def texts_in(row: dict[str, Any], field: str) -> list[str]:
    """A list of strings in a row, or an error that names the field."""
    values = list_in(row, field)
    for index, value in enumerate(values):
        if not isinstance(value, str):
            reason = f"expected a string, got {value!r:.60}"
            raise RolloutError(reason, field=f"{field}[{index}]")
    return values


def _named(within: str, field: str) -> str:
    return f"{within}.{field}" if within else field
