"""Rows laid out as a trainer's padded tensors: left padding, holes, garbage off the mask."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from tests.credit.strategies import LOGPROBS, Rows, build
from tests.reference import trained
from tests.reference.rows import Stream

import stepcredit as sc

GARBAGE = 1e30


@dataclass(frozen=True)
class Padded:
    """Where each row's trained tokens stand: mask (rows, width), and the positions by row."""

    mask: torch.Tensor
    places: list[list[int]]


def pad(rows: Rows, rng: Random) -> Padded:
    """As wide as the longest row or wider, padded on the right, on the left, or with holes."""
    width = max(row["length"] for row in rows) + rng.randint(0, 4)
    layout = rng.choice(("right", "left", "holes", "holes"))
    places = [_places(layout, width, row["length"], rng) for row in rows]
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for row, at in zip(mask, places, strict=True):
        row[at] = True
    return Padded(mask, places)


def _places(layout: str, width: int, length: int, rng: Random) -> list[int]:
    if layout == "right":
        return list(range(length))
    if layout == "left":
        return list(range(width - length, width))
    return sorted(rng.sample(range(width), length))


def padded_rollouts(rows: Rows, padded: Padded) -> sc.Rollouts:
    """The rows through `Rollouts.from_padded`; every slot off the mask holds garbage."""
    return sc.Rollouts.from_padded(**padded_arguments(rows, padded))


def padded_arguments(rows: Rows, padded: Padded) -> dict[str, Any]:
    """The rows as the arguments of `Rollouts.from_padded`."""
    plain = [trained(row) for row in rows]
    packed = build(rows)
    stream = packed.streams.get("process")
    signals: dict[str, Any] = {}
    if isinstance(stream, sc.Steps):
        ids, scores = _step_table([r.streams.get("process") for r in plain], padded)
        signals = {"step_id": ids, "step_scores": scores}
    elif stream is not None and all("process" in r.streams for r in plain):
        signals = {"token_scores": _table([r.streams["process"].scores for r in plain], padded)}
    if any(r.states for r in plain):
        signals = _states(plain, padded, signals)
    scored = {"step_scores", "token_scores"} & signals.keys()
    further = {n: s for n, s in packed.streams.items() if n != "process" or not scored}
    return signals | {
        "mask": padded.mask,
        "group": [row["group"] for row in rows],
        "outcome": [r.outcome for r in plain],
        "format": [r.format for r in plain],
        "format_ok": [r.format_ok for r in plain],
        "process": further,
        "logprobs": {n: _table([r.logprobs[n] for r in plain], padded) for n in LOGPROBS},
    }


def _states(plain: list[Any], padded: Padded, signals: dict[str, Any]) -> dict[str, Any]:
    """States by step id, beside the scores if every row has them, else with the ids of all steps.

    The first step of every row has no token, and a state of its own.
    """
    states = {"step_states": [[["none"] * len(r.states[0]), *r.states] for r in plain]}
    if signals and all("process" in r.streams for r in plain):
        return signals | states
    ends = [Stream([0.0] * len(r.ends), r.ends) for r in plain]
    return states | {"step_id": _step_table(ends, padded)[0]}


def _table(values: list[list[float]], padded: Padded) -> torch.Tensor:
    out = torch.full(padded.mask.shape, GARBAGE, dtype=torch.float64)
    for row, (at, numbers) in enumerate(zip(padded.places, values, strict=True)):
        out[row, at] = torch.tensor(numbers, dtype=torch.float64)
    return out


def _step_table(streams: list[Any], padded: Padded) -> tuple[torch.Tensor, torch.Tensor]:
    """Step ids at the trained tokens; the first step of every row has none, and a garbage score."""
    most = max(len(s.scores) if s else 0 for s in streams)
    ids = torch.full(padded.mask.shape, -1)
    scores = torch.full((len(streams), most + 1), GARBAGE, dtype=torch.float64)
    for row, (stream, at) in enumerate(zip(streams, padded.places, strict=True)):
        if stream is None:
            continue
        scores[row, 1 : 1 + len(stream.scores)] = torch.tensor(stream.scores, dtype=torch.float64)
        for token, place in enumerate(at):
            ids[row, place] = 1 + next(j for j, end in enumerate(stream.ends) if token <= end)
    return ids, scores
