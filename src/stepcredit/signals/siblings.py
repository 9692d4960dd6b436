"""Draws, for each response, a right response of its group that is not the response itself."""

from __future__ import annotations

from collections.abc import Sequence

from stepcredit.keys import digest64, keyed_seed
from stepcredit.signals.facts import number_fact, rows_of_groups
from stepcredit.signals.responses import Response


def right_siblings(
    responses: Sequence[Response], *, right_above: float = 0.0, seed: int = 0
) -> list[str | None]:
    """The text of a right response of the same group, drawn for each response.

    A response with the same text, up to the space around it, counts as the response itself: it is
    never drawn. Each other text of a right response has the same chance. The draw depends on the
    seed and on the texts alone, so the order of the responses and other groups do not change it.

    Args:
        responses: whole groups; `group` and `outcome` are among their facts.
        right_above: a response is right if its outcome is above this; an unknown outcome is not.
        seed: of the draws.

    Returns:
        One text per response; None where the group has no other right response.

    Raises:
        RolloutError: a response without `group`, with an outcome that is no number, or one that
            shares its trajectory with another.

    Example:
        >>> rows = [("1 + 1 = 2", 1.0), ("It is 2.", 1.0), ("It is 3.", 0.0)]
        >>> group = [
        ...     Response.of_text("1 + 1?", text, facts={"group": 0, "outcome": outcome})
        ...     for text, outcome in rows
        ... ]
        >>> right_siblings(group)
        ['It is 2.', '1 + 1 = 2', 'It is 2.']
    """
    found: list[str | None] = [None] * len(responses)
    for rows in rows_of_groups(responses):
        texts = [responses[row].text.strip() for row in rows]
        right = {
            text: digest64(text)
            for row, text in zip(rows, texts, strict=True)
            if text and _is_right(responses[row], right_above)
        }
        for row, own in zip(rows, texts, strict=True):
            found[row] = _drawn(own, right, seed)
    return found


def _is_right(response: Response, right_above: float) -> bool:
    known = response.facts.get("outcome") is not None
    return known and number_fact(response, "outcome") > right_above


def _drawn(own: str, right: dict[str, int], seed: int) -> str | None:
    """The other text with the smallest key; the keys are random, so each is as likely."""
    key = digest64(own)
    others = [text for text in right if text != own]
    return min(others, key=lambda text: keyed_seed(seed, "sibling", key, right[text]), default=None)
