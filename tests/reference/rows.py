"""Rows of the file format as plain lists over trained tokens, and the groups they form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LOGPROBS = ("student", "teacher", "base", "prm", "ref")


@dataclass
class Stream:
    """One process stream of one response: `scores`, one a step (`ends` given) or one a token."""

    scores: list[float]
    ends: list[int] | None = None
    is_advantage: bool = False

    def at(self, token: int) -> float:
        """The score of the step (or token) that holds `token`."""
        if self.ends is None:
            return self.scores[token]
        return next(s for s, e in zip(self.scores, self.ends, strict=True) if token <= e)

    def step_ends(self) -> list[int]:
        """Where the units end that the signal scored; a token signal scores every token."""
        return list(range(len(self.scores))) if self.ends is None else self.ends


@dataclass
class Row:
    """One response, trained tokens only; `states` holds the keys of each step, `ends` its steps.

    Chunks also end at `part_ends`: a trajectory's parts, written as one row.
    """

    group: str
    length: int
    streams: dict[str, Stream] = field(default_factory=dict)
    outcome: float | None = None
    format: float | None = None
    format_ok: bool = True
    logprobs: dict[str, list[float]] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    states: list[list[str]] = field(default_factory=list)
    part_ends: list[int] = field(default_factory=list)


def trained(row: dict[str, Any]) -> Row:
    """A row as read, with every token that `loss_mask` leaves out removed."""
    keep = _kept(row)
    out = Row(
        group=str(row["group"]),
        length=len(keep),
        outcome=row.get("outcome"),
        format=row.get("format"),
        format_ok=row.get("format_ok", True),
        part_ends=row.get("part_ends", []),
    )
    if "step_scores" in row:
        out.streams["process"] = _steps(row["step_scores"], row["step_ends"], keep)
    elif "token_scores" in row:
        out.streams["process"] = Stream([row["token_scores"][t] for t in keep])
    for name, signal in row.get("signals", {}).items():
        if "advantages" in signal:
            out.streams[name] = Stream([signal["advantages"][t] for t in keep], None, True)
        elif "ends" in signal:
            out.streams[name] = _steps(signal["scores"], signal["ends"], keep)
        else:
            out.streams[name] = Stream([signal["scores"][t] for t in keep])
    for name in LOGPROBS:
        if f"{name}_logprobs" in row:
            out.logprobs[name] = [row[f"{name}_logprobs"][t] for t in keep]
    if "step_states" in row:
        steps = _steps(row["step_states"], row["step_ends"], keep)
        out.ends = steps.ends or []
        out.states = [[str(k) for k in (s if isinstance(s, list) else [s])] for s in steps.scores]
    return out


def _kept(row: dict[str, Any]) -> list[int]:
    if "loss_mask" in row:
        return [t for t, m in enumerate(row["loss_mask"]) if m]
    return list(range(_length(row)))


def _length(row: dict[str, Any]) -> int:
    if "length" in row:
        return row["length"]
    if "step_ends" in row:
        return row["step_ends"][-1] + 1
    names = ["token_scores", "token_ids", "tokens", *(f"{n}_logprobs" for n in LOGPROBS)]
    for name in names:
        if name in row:
            return len(row[name])
    for signal in row.get("signals", {}).values():
        if "ends" in signal:
            return signal["ends"][-1] + 1
        return len(signal.get("scores", signal.get("advantages")))
    raise ValueError("nothing tells the length")


def _steps(scores: list[Any], ends: list[int], keep: list[int]) -> Stream:
    """Steps counted in trained tokens; one without a trained token is left out."""
    kept_scores, kept_ends = [], []
    start = 0
    for score, end in zip(scores, ends, strict=True):
        if any(start <= t <= end for t in keep):
            kept_scores.append(score)
            kept_ends.append(sum(t <= end for t in keep) - 1)
        start = end + 1
    return Stream(kept_scores, kept_ends)


def by_group(rows: list[Row], rule: Callable[[list[Row]], list[list[float]]]) -> list[list[float]]:
    """Apply a rule to each group on its own; the rows' order is kept."""
    out: list[list[float]] = [[] for _ in rows]
    for label in dict.fromkeys(r.group for r in rows):
        members = [i for i, r in enumerate(rows) if r.group == label]
        for i, values in zip(members, rule([rows[i] for i in members]), strict=True):
            out[i] = values
    return out
