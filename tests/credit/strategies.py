"""Random batches as rows of the file format, and the same rows as `Rollouts`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from tests.reference import trained

import stepcredit as sc

Rows = list[dict[str, Any]]
LOGPROBS = ("student", "teacher", "base", "prm", "ref")
SCORES = ("tenths", "thirds", "real", "negative", "equal")
EXTREME = (1e30, -1e30, 1e-30, -1e-30, 0.0, 1.0)


def examples(count: int) -> settings:
    """Settings of a property test: stable from run to run; STEPCREDIT_DEPTH=20 hunts deeper."""
    depth = int(os.environ.get("STEPCREDIT_DEPTH", "1"))
    return settings(max_examples=count * depth, deadline=None, derandomize=depth == 1)


def score(rng: Random, kind: str) -> float:
    """One score: in tenths (ties), thirds, real, negative, all equal, or 1e30 beside 1e-30."""
    if kind == "tenths":
        return rng.randint(-10, 10) / 10
    if kind == "thirds":
        return rng.choice((-1 / 3, 0.0, 1 / 3))
    if kind == "real":
        return rng.gauss(0.0, 1.0)
    if kind == "negative":
        return -rng.expovariate(1.0)
    if kind == "extreme":
        return rng.choice(EXTREME)
    return 0.3


def logprob(rng: Random, kind: str) -> float:
    """One log-prob, of the same kind as the scores."""
    if kind in ("tenths", "extreme", "equal"):
        return -abs(score(rng, kind))
    return -rng.expovariate(1.0)


def random_ends(rng: Random, length: int) -> list[int]:
    """Ends of random steps that cover `length` tokens."""
    inner = [t for t in range(length - 1) if rng.random() < 0.4]
    return [*inner, length - 1]


def process_fields(rng: Random, signal: str, kind: str, length: int) -> dict[str, Any]:
    """The process part of a row: `steps`, `tokens`, several `streams`, `entropy`, or `none`."""
    ends = random_ends(rng, length)
    steps = {"step_ends": ends, "step_scores": [score(rng, kind) for _ in ends]}
    tokens = [score(rng, kind) for _ in range(length)]
    if signal == "steps":
        return steps
    if signal == "tokens":
        return {"token_scores": tokens}
    if signal == "streams":
        judge = random_ends(rng, length)
        signals = {
            "judge": {"ends": judge, "scores": [score(rng, kind) for _ in judge]},
            "teacher": {"scores": tokens},
            "critic": {"advantages": [score(rng, kind) for _ in range(length)]},
        }
        return {**steps, "signals": signals}
    if signal == "entropy":
        return {"signals": {"entropy": {"scores": [abs(s) for s in tokens]}}}
    return {}


def random_state(rng: Random, levels: int) -> Any:
    """A state of few: one key, or nested ones from the finest to the coarsest."""
    fine = rng.randint(0, 5)
    keys: list[str | int] = [str(fine) if rng.random() < 0.5 else fine, fine // 2, fine // 4]
    return keys[0] if levels == 1 else keys[:levels]


def random_rows(
    rng: Random,
    sizes: Sequence[int],
    signal: str = "steps",
    kind: str = "tenths",
    *,
    max_length: int = 9,
    gaps: bool = False,
    outcome: str = "maybe",
    gate: bool = True,
    steps: int | None = None,
    states: int = 0,
) -> Rows:
    """Groups of the given sizes, interleaved.

    Args:
        gaps: some rows come without a process signal, and some groups of several streams without
            the one named process.
        outcome: "known", or "maybe" (unknown for whole groups).
        gate: some rows break their format.
        steps: the same number of steps in every response.
        states: keys per step of `step_states`, in every row, with or without scores; 0: none.
    """
    rows: Rows = []
    for label, size in enumerate(sizes):
        known = outcome == "known" or rng.random() < 0.7
        with_format = rng.random() < 0.8
        nameless = gaps and rng.random() < 0.25
        for _ in range(size):
            length = rng.randint(steps or 1, max_length)
            row: dict[str, Any] = {"group": f"g{label}", "length": length}
            row["outcome"] = score(rng, kind if kind != "equal" else "tenths") if known else None
            if with_format:
                row["format"] = rng.choice((0.0, 0.5, 1.0))
            row["format_ok"] = not gate or rng.random() < 0.7
            if not (gaps and rng.random() < 0.25):
                row |= process_fields(rng, signal, kind, length)
            if nameless and signal == "streams":
                row = {name: v for name, v in row.items() if not name.startswith("step_")}
            if steps:
                ends = [*sorted(rng.sample(range(length - 1), steps - 1)), length - 1]
                row |= {"step_ends": ends, "step_scores": [score(rng, kind) for _ in ends]}
            if states:
                ends = row.setdefault("step_ends", random_ends(rng, length))
                row["step_states"] = [random_state(rng, states) for _ in ends]
            rows.append(row)
    for row in rows:
        for name in LOGPROBS:
            row[f"{name}_logprobs"] = [logprob(rng, kind) for _ in range(row["length"])]
    rng.shuffle(rows)
    return rows


@st.composite
def batches(
    draw: st.DrawFn,
    signals: Sequence[str] = ("steps", "tokens", "streams"),
    kinds: Sequence[str] = SCORES,
    max_groups: int = 3,
    max_size: int = 4,
    **options: Any,
) -> Rows:
    """Random batches; hypothesis shrinks the groups, a seed fills them."""
    sizes = draw(st.lists(st.integers(1, max_size), min_size=1, max_size=max_groups))
    signal, kind = draw(st.sampled_from(signals)), draw(st.sampled_from(kinds))
    rng = Random(draw(st.integers(0, 2**20)))
    return random_rows(rng, sizes, signal, kind, **options)


def build(rows: Rows, dtype: torch.dtype | None = None) -> sc.Rollouts:
    """The rows as `Rollouts`, from lists, or from packed tensors of `dtype`."""
    plain = [trained(row) for row in rows]
    names = dict.fromkeys(n for row in plain for n in row.streams)
    probs = [n for n in LOGPROBS if any(n in row.logprobs for row in plain)]
    states = [row.states for row in plain]
    held: dict[str, Any] = {}
    if any(states):
        held |= {"step_ends": [row.ends for row in plain], "step_states": states}
    if any("trajectory" in row for row in rows):
        held["trajectory"] = [row.get("trajectory") for row in rows]
    return sc.Rollouts(
        group=[row["group"] for row in rows],
        lengths=[row.length for row in plain],
        process={name: _stream([row.streams.get(name) for row in plain], dtype) for name in names},
        outcome=_scalars([row.outcome for row in plain], dtype),
        format=_scalars([row.format for row in plain], dtype),
        format_ok=[row.format_ok for row in plain],
        logprobs={n: _tokens([row.logprobs[n] for row in plain], dtype) for n in probs},
        **held,
    )


def _stream(streams: list[Any], dtype: torch.dtype | None) -> sc.Tokens:
    scores = [[] if s is None else s.scores for s in streams]
    present = next(s for s in streams if s is not None)
    if present.is_advantage:
        values, counts = _packed(scores, dtype)
        return sc.TokenAdvantages(values, counts)
    if present.ends is None:
        return _tokens(scores, dtype)
    ends = [[] if s is None else s.ends for s in streams]
    if dtype is None:
        return sc.Steps(ends=ends, scores=scores)
    values, counts = _packed(scores, dtype)
    return sc.Steps(ends=_packed(ends, torch.int64)[0], scores=values, counts=counts)


def _tokens(scores: list[list[float]], dtype: torch.dtype | None) -> sc.Tokens:
    return sc.Tokens(*_packed(scores, dtype))


def _packed(rows: list[list[float]], dtype: torch.dtype | None) -> tuple[Any, Any]:
    if dtype is None:
        return rows, None
    counts = torch.tensor([len(row) for row in rows])
    return torch.tensor([v for row in rows for v in row], dtype=dtype), counts


def _scalars(values: list[float | None], dtype: torch.dtype | None) -> Any:
    if dtype is None or any(v is None for v in values):
        return values
    return torch.tensor(values, dtype=dtype)
