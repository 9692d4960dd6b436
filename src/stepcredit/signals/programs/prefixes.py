"""Process scores from outcomes alone: statistics of the prefixes that a group's responses share."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.settings.fields import check_fields, choice
from stepcredit.signals.facts import number_fact, rows_of_groups
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Grain, IndexedScores, Signal
from stepcredit.signals.signal_registry import register_signal


@register_signal("shared-prefix")
@dataclass(frozen=True)
class SharedPrefix(Signal):
    """The mean outcome of the group's responses that share a response's tokens so far.

        V_t = mean of r_out,k over the k whose first t tokens are the response's own
        score_j = V at step j's last token, or token by token     (score="value")
        score_j = V_j - V_{j-1}, V_0 the group's mean outcome     (score="progress")

    - After the first token at which a response differs from all others, V is its own outcome.
    - A response's progress adds up to r_out - mean r_out, unless another response continues it.

    A step adds information to the outcome only if some responses of the group share it and others
    do not. A large group, or one sampled as a tree, has many such steps.

    Tokens are token ids, or for a group that has none, the tokens' texts.

    Args:
        score: "value" or "progress".
        per: "steps" or "tokens".

    Raises:
        RolloutError: a row without `group` or `outcome`, without token ids in a group with them, or
            of a trajectory that has another row.

    Example:
        >>> rows = [((5, 6), 1.0), ((5, 7), 0.0)]
        >>> group = [
        ...     Response("?", "ab", ((0, 1), (1, 2)), (1, 2), token_ids=ids,
        ...              facts={"group": 0, "outcome": outcome})
        ...     for ids, outcome in rows
        ... ]
        >>> SharedPrefix().scores(group)
        [[0.5, 1.0], [0.5, 0.0]]

    Source: lambda-GRPO (2509.21154), the process reward R_i,t that GRPO implies. Differs: that
    paper then divides each token's loss by the number of responses that share it, which is the
    trainer's part.
    """

    score: str = choice("value", ("value", "progress"), "V_j, or its change by step j")
    per: Grain = choice("steps", ("steps", "tokens"), "what is scored")

    cacheable = False

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def grain(self) -> Grain:
        """The value of `per`."""
        return self.per

    @property
    def identity(self) -> dict[str, Any]:
        """The form of the score."""
        return {"signal": self.name, "score": self.score, "per": self.per}

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Group by group, in the order in which groups first appear."""
        for rows in rows_of_groups(responses):
            outcomes = [number_fact(responses[row], "outcome") for row in rows]
            values = prefix_values(_tokens([responses[row] for row in rows]), outcomes)
            start = sum(outcomes) / len(outcomes)
            for row, of_tokens in zip(rows, values, strict=True):
                yield row, self._scores(responses[row], of_tokens, start)

    def _scores(self, response: Response, values: list[float], start: float) -> list[float]:
        if self.per == "steps":
            values = [values[end] for end in response.step_ends]
        if self.score == "value":
            return values
        return [after - before for before, after in pairwise((start, *values))]


def prefix_values(
    sequences: Sequence[Sequence[Hashable]], outcomes: Sequence[float]
) -> list[list[float]]:
    """For each token, the mean outcome of the sequences that are equal up to and including it.

    Args:
        sequences: a group's tokens.
        outcomes: one per sequence.

    Returns:
        One value per token of each sequence; equal sequences count as often as they occur.

    Example:
        >>> prefix_values([[1, 2], [1, 3], [1]], [1.0, 0.0, 0.5])
        [[0.5, 1.0], [0.5, 0.0], [0.5]]
    """
    children: dict[tuple[int, Hashable], int] = {}
    totals, sizes = [0.0], [0]
    paths: list[list[int]] = []
    for sequence, outcome in zip(sequences, outcomes, strict=True):
        node, path = 0, []
        for token in sequence:
            node = children.setdefault((node, token), len(totals))
            if node == len(totals):
                totals.append(0.0)
                sizes.append(0)
            totals[node] += outcome
            sizes[node] += 1
            path.append(node)
        paths.append(path)
    return [[totals[node] / sizes[node] for node in path] for path in paths]


def _tokens(group: Sequence[Response]) -> list[Sequence[Hashable]]:
    """Each response's token ids; their texts where no response has ids."""
    if all(response.token_ids is None for response in group):
        return [[response.text[start:end] for start, end in response.spans] for response in group]
    tokens: list[Sequence[Hashable]] = []
    for response in group:
        if response.token_ids is None:
            raise RolloutError(
                "missing: others of its group have it", field="token_ids", place=response.name
            )
        tokens.append(response.token_ids)
    return tokens
