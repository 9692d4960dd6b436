"""Read the facts in a row that a signal needs: the gold answer, the outcome, the group."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.signals.responses import Response


def required_fact(response: Response, field: str) -> Any:
    """A field of the row, which must be there.

    Raises:
        RolloutError: it is absent or null; the error names the response.
    """
    value = response.facts.get(field)
    if value is None:
        raise RolloutError("missing: this signal needs it", field=field, place=response.name)
    return value


def number_fact(response: Response, field: str) -> float:
    """A field of the row that is a finite number.

    Raises:
        RolloutError: it is absent, or anything else.

    Example:
        >>> number_fact(Response.of_text("?", "yes", facts={"outcome": 1}), "outcome")
        1.0
    """
    value = required_fact(response, field)
    if isinstance(value, int | float) and isfinite(value):
        return float(value)
    raise RolloutError(f"expected a finite number, got {value!r}", field=field, place=response.name)


def text_fact(response: Response, field: str) -> str:
    """A field of the row that is a text, or a finite number as text: a whole one without a point.

    Raises:
        RolloutError: it is absent, empty, or anything else.

    Example:
        >>> for answer in "1/2", 42, 18.0:
        ...     text_fact(Response.of_text("?", "yes", facts={"answer": answer}), "answer")
        '1/2'
        '42'
        '18'
    """
    value = required_fact(response, field)
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        return str(int(value) if value == int(value) else value)
    raise RolloutError(
        f"expected a text or a number, got {value!r}", field=field, place=response.name
    )


def numbers_fact(response: Response, field: str) -> list[float]:
    """A field of the row that holds one finite number per token.

    Raises:
        RolloutError: it is absent, of another length, or holds anything else.
    """
    values = required_fact(response, field)
    if not isinstance(values, list | tuple):
        raise RolloutError(
            f"expected a list of numbers, got {values!r}", field=field, place=response.name
        )
    if len(values) != response.num_tokens:
        reason = f"{len(values)} numbers for {response.num_tokens} tokens"
        raise RolloutError(reason, field=field, place=response.name)
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            reason = f"expected finite numbers, got {value!r}"
            raise RolloutError(reason, field=field, place=response.name)
    return [float(value) for value in values]


def rows_of_groups(responses: Sequence[Response]) -> list[list[int]]:
    """The rows of each group, in the order in which groups first appear; 3 and "3" are one group.

    Raises:
        RolloutError: a response without `group`, or two of one trajectory; the error names it.

    Example:
        >>> rows_of_groups([Response.of_text("?", "a", facts={"group": g}) for g in (3, 1, "3")])
        [[0, 2], [1]]
    """
    rows: dict[str, list[int]] = {}
    parts = set[tuple[str, str]]()
    for index, response in enumerate(responses):
        group, trajectory = str(required_fact(response, "group")), response.facts.get("trajectory")
        part = (group, str(trajectory))
        if trajectory is not None and part in parts:
            reason = "a part of a trajectory is no whole response, which this signal compares"
            raise RolloutError(reason, field="trajectory", place=response.name)
        parts.add(part)
        rows.setdefault(group, []).append(index)
    return list(rows.values())


def policy_ids(response: Response) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The policy's tokens: the prompt's and the response's.

    Raises:
        RolloutError: either is unknown, or the prompt has no token to predict the first one from.
    """
    for field in ("prompt_ids", "token_ids"):
        if getattr(response, field) is None:
            raise RolloutError("missing: this signal needs it", field=field, place=response.name)
    if not response.prompt_ids:
        reason = "holds no token: nothing predicts the response's first one"
        raise RolloutError(reason, field="prompt_ids", place=response.name)
    assert response.token_ids is not None
    return response.prompt_ids, response.token_ids
