"""Responses split into the parts of a trajectory, and their advantages put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from tests.credit.strategies import LOGPROBS, Rows

Row = dict[str, Any]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Split:
    """Whole responses, and the same responses in parts.

    Args:
        whole: one row per response; `part_ends` are the last tokens of its parts.
        parts: one row per part; those of a response have one `trajectory`, and stand in order.
        of_part: the response of each part.
    """

    whole: Rows
    parts: Rows
    of_part: list[int]

    def together(self, values: Sequence[Sequence[Item]]) -> list[list[Item]]:
        """Values of the parts' tokens as those of the responses."""
        out: list[list[Item]] = [[] for _ in self.whole]
        for response, own in zip(self.of_part, values, strict=True):
            out[response] += list(own)
        return out


def split(rows: Rows, rng: Random) -> Split:
    """Most of the responses in up to four parts, at step boundaries; the rows are then mixed."""
    whole, parts = [], []
    for response, row in enumerate(rows):
        inner = step_boundaries(row)
        cuts = sorted(rng.sample(inner, rng.randint(0, min(3, len(inner)))))
        ends = [*cuts, row["length"] - 1]
        whole.append(row | {"part_ends": ends})
        parts.append([(response, part) for part in parts_of(row, ends, response, rng)])
    mixed = interleaved(parts, rng)
    return Split(whole, [part for _, part in mixed], [response for response, _ in mixed])


def step_boundaries(row: Row) -> list[int]:
    """Tokens at which a step of every stream of steps ends, without the last token."""
    found = set(range(row["length"] - 1))
    lists = [row.get("step_ends"), *(s.get("ends") for s in row.get("signals", {}).values())]
    for ends in lists:
        found &= found if ends is None else set(ends)
    return sorted(found)


def parts_of(row: Row, ends: list[int], name: int, rng: Random) -> Rows:
    """The parts of a response; some of them say neither the outcome nor the format."""
    if len(ends) == 1:
        return [row]
    starts = [0, *(end + 1 for end in ends[:-1])]
    parts = [part_of(row, a, b) | {"trajectory": name} for a, b in zip(starts, ends, strict=True)]
    for scalar in ("outcome", "format"):
        if row.get(scalar) is not None:
            teller = rng.randrange(len(parts))
            for at, part in enumerate(parts):
                part[scalar] = row[scalar] if at == teller or rng.random() < 0.5 else None
    return parts


def part_of(row: Row, first: int, last: int) -> Row:
    """Tokens `first` to `last` of a response, with all that belongs to them."""
    part = row | {"length": last + 1 - first}
    for name in ("token_scores", *(f"{model}_logprobs" for model in LOGPROBS)):
        if name in row:
            part[name] = row[name][first : last + 1]
    if "step_ends" in row:
        inside = [at for at, end in enumerate(row["step_ends"]) if first <= end <= last]
        part["step_ends"] = [row["step_ends"][at] - first for at in inside]
        for name in ("step_scores", "step_states"):
            if name in row:
                part[name] = [row[name][at] for at in inside]
    if "signals" in row:
        part["signals"] = {n: signal_of(s, first, last) for n, s in row["signals"].items()}
    return part


def signal_of(signal: Row, first: int, last: int) -> Row:
    if "ends" not in signal:
        return {name: values[first : last + 1] for name, values in signal.items()}
    inside = [at for at, end in enumerate(signal["ends"]) if first <= end <= last]
    ends = [signal["ends"][at] - first for at in inside]
    return {"ends": ends, "scores": [signal["scores"][at] for at in inside]}


def interleaved(lists: list[list[Item]], rng: Random) -> list[Item]:
    """All items in a random order that keeps the order within each list."""
    turns = [at for at, items in enumerate(lists) for _ in items]
    rng.shuffle(turns)
    following = [iter(items) for items in lists]
    return [next(following[at]) for at in turns]
