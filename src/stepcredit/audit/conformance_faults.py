"""The known faults of a trainer's advantages, each as what it makes of a method's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from stepcredit.audit.misplaced_rows import misplaced
from stepcredit.audit.row_table import RowTable
from stepcredit.audit.stored_advantages import Counts, Flags, Floats

Guess = tuple[str, Floats]
"""What happened, in words, and the advantages that it predicts, in a table's shape."""


@dataclass(frozen=True)
class ConformanceFault:
    """A fault that advantages may have.

    Args:
        name: its name.
        freedom: how much of it is chosen to fit: 0 nothing, 1 a number or a source, 2 a choice per
            token. Of two faults that explain the same, the one of less freedom is the better.
        guesses: what it would make of the expected advantages, one per variant.
        advice: where to look in the trainer.
        special_cases: names of faults that it contains, so that it is no other reading of them.
    """

    name: str
    freedom: int
    guesses: Callable[[RowTable], Iterator[Guess]]
    advice: str
    special_cases: tuple[str, ...] = ()


def sign_flipped(table: RowTable) -> Iterator[Guess]:
    """`-A`."""
    yield "the sign of every advantage is flipped", -table.expected


def scaled(table: RowTable) -> Iterator[Guess]:
    """`c A` with one c for the batch, the median of the quotients; or `A / L` per response."""
    sizeable = np.abs(table.expected) > 1e-3 * np.abs(table.expected).max()
    if not sizeable.any():
        return
    factor = float(np.median(table.stored[sizeable] / table.expected[sizeable]))
    if factor != 0 and not 0.99 < abs(factor) < 1.01:
        yield f"every advantage is multiplied by {factor:.4g}", factor * table.expected
    by_length = table.expected / table.lengths[:, None]
    yield "every advantage is divided by its response's number of trained tokens", by_length


def shifted(table: RowTable) -> Iterator[Guess]:
    """`A_{t-1}` or `A_{t+1}`, over trained tokens or over all tokens of the response.

    The token without a neighbour may hold 0, its own advantage, or that of the other end.
    """
    layouts = [("", table.trained)]
    if (table.trained != table.present).any():
        layouts.append((", counted over all tokens of the response", table.present))
    for where, layout in layouts:
        for by, side in ((1, "later"), (-1, "earlier")):
            what = f"every advantage stands one token {side} than it should{where}"
            yield what, moved_by_one(table.expected, layout, by, table.stored)


def moved_by_one(values: Floats, places: Flags, by: int, stored: Floats) -> Floats:
    """Each row's values one place on (by = 1) or back (by = -1), among its places.

    Args:
        values: (row, token).
        places: which tokens take part.
        by: 1 or -1.
        stored: of the same shape; of 0, the own value and the other end's, the one that is nearest
            to it stands where no value comes from.

    Returns:
        (row, token), 0 outside the places.

    Example:
        >>> row, every = np.array([[1.0, 2.0, 3.0]]), np.ones((1, 3), dtype=bool)
        >>> moved_by_one(row, every, 1, np.zeros((1, 3))).tolist()
        [[0.0, 1.0, 2.0]]
    """
    order = np.argsort(~places, axis=1, kind="stable")
    dense = np.take_along_axis(values, order, axis=1)
    last = places.sum(axis=1) - 1
    each = np.arange(len(values))
    moved = np.roll(dense, by, axis=1)
    edge = np.zeros_like(last) if by > 0 else last
    ends = np.stack([np.zeros(len(values)), dense[each, 0], dense[each, last]])
    wanted = stored[each, order[each, edge]]
    moved[each, edge] = ends[np.abs(ends - wanted).argmin(axis=0), each]
    found = np.zeros_like(values)
    np.put_along_axis(found, order, moved, axis=1)
    return np.where(places, found, 0.0)


def whitened_again(table: RowTable) -> Iterator[Guess]:
    """`(A - mean) / std` over the batch's tokens, or over its responses' means."""
    whole = table.whole
    pools = (("tokens", whole.expected, (1,)), ("responses", whole.row_means, (1, 0)))
    for of, pool, freedoms in pools:
        for ddof in freedoms:
            if len(pool) > ddof and (std := float(pool.std(ddof=ddof))) > 0:
                what = f"the advantages are whitened again, over all {of} of the batch"
                yield what, (table.expected - pool.mean()) / std


def normalized_twice(table: RowTable) -> Iterator[Guess]:
    """`(A - mean) / std` over the tokens of a group, or over its responses' means."""
    whole = table.whole
    at = whole.group[table.rows]
    chosen = np.isin(whole.group, at)
    tokens = whole.expected[np.repeat(chosen, whole.counts)]
    of_token = np.repeat(whole.group[chosen], whole.counts[chosen])
    pools = (("tokens", tokens, of_token), ("responses", whole.row_means, whole.group))
    for of, pool, group in pools:
        for ddof in (1, 0):
            mean, std = group_moments(pool, group, ddof)
            quotient = (table.expected - mean[at, None]) / np.where(std > 0, std, 1.0)[at, None]
            yield f"the advantages are normalized a second time, over the {of} of a group", quotient


def group_moments(values: Floats, group: Counts, ddof: int) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each group; 0 for a deviation of `ddof` values or fewer.

    Example:
        >>> mean, std = group_moments(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 1]), 1)
        >>> mean.tolist(), std.round(4).tolist()
        ([2.0, 5.0], [1.4142, 0.0])
    """
    size = np.bincount(group)
    mean = np.bincount(group, values) / np.maximum(size, 1)
    squares = np.bincount(group, np.square(values - mean[group]))
    std = np.sqrt(squares / np.maximum(size - ddof, 1))
    return mean, np.where(size > ddof, std, 0.0)


def broadcast_from_one(table: RowTable) -> Iterator[Guess]:
    """One value on all tokens of a response: the mean, the first, or the last of the method's."""
    lengths = table.lengths
    order = np.argsort(~table.trained, axis=1, kind="stable")
    dense = np.take_along_axis(table.expected, order, axis=1)
    values = {
        "the mean": dense.sum(axis=1) / lengths,
        "the first": dense[:, 0],
        "the last": dense[np.arange(len(dense)), lengths - 1],
    }
    for which, value in values.items():
        what = f"all tokens of a response hold {which} of its advantages"
        yield what, np.where(table.trained, value[:, None], 0.0)


def reset_at_tool(table: RowTable) -> Iterator[Guess]:
    """The return begins anew after tool output.

        A'_t = (G_t - G_next) / d_t + c,   A_t = G_t / d_t + c

    G_next is the return at the start of the next turn, 0 in the last one. c, which is added on all
    tokens, may be left out of all turns but the last, where it is one more reward at the end. Only
    advantages that are made so have these guesses (`ReturnParts`): a minimum of what follows, or a
    norm of the returns, can't be undone by a difference.

    Two more guesses: only the last turn, or only the first, keeps its advantages.
    """
    after = next_turn_start(table.trained)
    width = table.trained.shape[1]
    if not has_turns(table.trained):
        return
    is_last, is_first = after >= width, turn_number(table.trained) == 1
    if table.parts is not None:
        parts, at = table.parts, np.minimum(after, width - 1)
        following = np.where(is_last, 0.0, np.take_along_axis(parts.returns, at, axis=1))
        own = (parts.returns - following) / np.where(table.trained, parts.divisors, 1.0)
        what = "the return begins anew after each tool output"
        yield what, own + parts.rest
        if parts.rest.any():
            end = f"{what}, and the last turn alone holds the outcome"
            yield end, own + np.where(is_last, parts.rest, 0.0)
    kept = (("last", is_last), ("first", is_first))
    for which, turn in kept:
        what = f"only the {which} turn of a response with tool output holds its advantages"
        yield what, np.where(turn, table.expected, 0.0)


def has_turns(trained: Flags) -> bool:
    """Whether a row has more than one turn, a run of trained tokens.

    Example:
        >>> has_turns(np.array([[True, False, True]])), has_turns(np.array([[True, True, False]]))
        (True, False)
    """
    return bool((turn_number(trained) > 1).any())


def turn_number(trained: Flags) -> Counts:
    """For each token, how many turns have begun up to it; a turn is a run of trained tokens.

    Example:
        >>> turn_number(np.array([[True, False, True, True]])).tolist()
        [[1, 1, 2, 2]]
    """
    return np.asarray(_turn_starts(trained).cumsum(axis=1))


def next_turn_start(trained: Flags) -> Counts:
    """For each token, where the next turn behind it begins; the width where there is none.

    Example:
        >>> next_turn_start(np.array([[True, False, True, True]])).tolist()
        [[2, 2, 4, 4]]
    """
    width = trained.shape[1]
    starts = np.where(_turn_starts(trained), np.arange(width), width)
    following = np.concatenate([starts[:, 1:], np.full((len(starts), 1), width)], axis=1)
    return np.asarray(np.minimum.accumulate(following[:, ::-1], axis=1)[:, ::-1])


def _turn_starts(trained: Flags) -> Flags:
    before = np.concatenate([np.zeros((len(trained), 1), dtype=bool), trained[:, :-1]], axis=1)
    return np.asarray(trained & ~before)


def zeroed(table: RowTable) -> Iterator[Guess]:
    """0 in place of some or all advantages."""
    changed = table.trained & (table.stored == 0) & (table.expected != 0)
    share = float(changed.sum() / max(1, (table.trained & (table.expected != 0)).sum()))
    if share > 0:
        what = f"{share:.0%} of the advantages of the responses that differ are 0"
        yield what, np.where(table.stored == 0, 0.0, table.expected)


def moved_by_constant(table: RowTable) -> Iterator[Guess]:
    """`c A + b` with one c and one b for the batch, by least squares."""
    x, y = table.expected[table.trained], table.stored[table.trained]
    if len(np.unique(x.round(6))) < FEWEST_VALUES:
        return
    deviation = x - x.mean()
    factor = float(deviation @ y / (deviation @ deviation))
    constant = float(y.mean() - factor * x.mean())
    if factor != 0 and abs(constant) > 1e-3 * np.abs(y).max():
        what = f"every advantage is multiplied by {factor:.4g}, and {constant:.4g} is added"
        yield what, factor * table.expected + constant


FEWEST_VALUES = 3
"""A line goes through any two points: with fewer different values it explains everything."""
FAULTS: tuple[ConformanceFault, ...] = (
    ConformanceFault(
        "sign flipped",
        0,
        sign_flipped,
        "Look where a loss, a cost or a penalty is negated.",
    ),
    ConformanceFault(
        "shifted by one token",
        0,
        shifted,
        "Look where the log-probs of the next token are aligned with advantages, such as `[:, 1:]` "
        "and `[:, :-1]`.",
    ),
    ConformanceFault(
        "normalized twice",
        0,
        normalized_twice,
        "Turn off one of the two norms over the group.",
    ),
    ConformanceFault(
        "whitened again",
        0,
        whitened_again,
        "Turn off the trainer's norm of advantages over the batch, such as `whiten_advantages`.",
    ),
    ConformanceFault(
        "reset at tool output",
        0,
        reset_at_tool,
        "Sum the return over trained tokens alone; do not multiply the running sum by the mask.",
    ),
    ConformanceFault(
        "broadcast",
        0,
        broadcast_from_one,
        "Give the loss one advantage per token, not one per response.",
    ),
    ConformanceFault(
        "scaled",
        1,
        scaled,
        "Look for a coefficient, for a std with another divisor, or for a division by the length.",
    ),
    ConformanceFault(
        "misplaced",
        1,
        misplaced,
        "Look where rows are sorted, balanced or gathered from processes, and undo that order.",
    ),
    ConformanceFault(
        "zeroed",
        2,
        zeroed,
        "Look for a mask, a filter or a limit of length that is applied to advantages.",
    ),
    ConformanceFault(
        "moved by a constant",
        2,
        moved_by_constant,
        "Look for a norm or a baseline behind the method.",
        ("whitened again", "scaled", "sign flipped", "normalized twice"),
    ),
)
"""All that are looked for, besides advantages at masked tokens."""
