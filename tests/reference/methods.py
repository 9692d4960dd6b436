"""One entry: a method's name, its parameters and rows in, a list of advantages a row out."""

from __future__ import annotations

from typing import Any

from . import combined, fusion, gigpo, others, pure, turns
from .numbers import whitened
from .rows import Row, by_group, trained

PASS: dict[str, Any] = {
    "weights": (1.0, 1.0, 1.0),
    "operator": "masked_norm",
    "outcome_operator": None,
    "ddof": 1,
    "eps": 1e-6,
    "gate": True,
    "clip": None,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "pass": {
        **PASS,
        "k": 0.7,
        "chunks": "auto",
        "chunks_from": None,
        "scope": "fused",
        "match_std": False,
        "recenter": False,
        "read": "last",
        "gamma": 1.0,
    },
    "pass-min": {**PASS, "temperature": 0.1, "outcome_in_min": 2.0},
    "pure": {
        "temperature": 0.1,
        "baseline": "per_token",
        "max_length": None,
        "outcome_weight": 1.0,
        "process_weight": 1.0,
        "whiten_batch": False,
        "form": "softmin",
    },
    "grpo": {"ddof": 1, "eps": 1e-6},
    "grpo-process": {"pooling": "sum", "weights": (1.0, 1.0, 1.0), "k": 0.0, "gamma": 1.0},
    "turn-return": {
        "gamma": 1.0,
        "baseline": "turns",
        "process_weight": 1.0,
        "outcome_weight": 1.0,
    },
    "gdpo": {"weights": {"outcome": 1.0, "format": 1.0}, "batch_norm": "response", "eps": None},
    "opd": {"coefficient": 1.0},
    "g-opd": {"coefficient": 1.0, "lam": 1.25},
    "gigpo": {
        "weights": (1.0, 1.0, 1.0),
        "gamma": 0.95,
        "outcome_in_return": True,
        "norm": "std",
        "gate": True,
        "combine": "fallback",
        "alpha": 1.0,
    },
    "adca": {"alpha": 0.1},
    "mix": {"first": "grpo", "second": "pass", "share": 0.5},
    "sign-size": {"first": "grpo", "second": "pass"},
    "redistribute": {"outcome": "grpo", "temperature": 1.0, "by_sign": True},
    "reweight": {"outcome": "grpo", "by": "surprise"},
    "rlsd": {"outcome": "grpo", "eps": 0.2, "share": 1.0},
    "reinforce-plus-plus": {"of": "dr-grpo"},
    "prime": {"beta": 0.05, "process_weight": 1.0, "whiten_batch": True, "norm": "none"},
}


def advantages(
    method: str, params: dict[str, Any], rollouts: list[dict[str, Any]]
) -> list[list[float]]:
    """The advantages of the trained tokens of every row."""
    p = {**DEFAULTS.get(method, {}), **params}
    rows = [trained(r) for r in rollouts]
    if method in combined.RULES:
        inside = {field: _inside(p[field], rollouts) for field in combined.PARTS if field in p}
        out = combined.RULES[method](inside, rows, p)
    else:
        out = _raw(method, p, rows)
    limit = p.get("clip")
    if limit is None:
        return out
    return [[max(-limit, min(limit, a)) for a in row] for row in out]


def _inside(part: Any, rollouts: list[dict[str, Any]]) -> list[list[float]]:
    """The advantages of a method that another one names, as a name or {name: params}."""
    ((name, params),) = ({part: {}} if isinstance(part, str) else part).items()
    return advantages(name, params, rollouts)


def _raw(method: str, p: dict[str, Any], rows: list[Row]) -> list[list[float]]:
    if method == "opd":
        return [others.opd_row(r, p["coefficient"]) for r in rows]
    if method == "g-opd":
        return [others.g_opd_row(r, p["coefficient"], p["lam"]) for r in rows]
    if method == "prime" and p["norm"] == "batch":
        p = {**p, "beta": others.prime_batch_beta(rows)}
    out = by_group(rows, lambda g: _group(method, p, g))
    if method == "gdpo":
        return others.gdpo_batch(out, p["batch_norm"])
    return whitened(out) if p.get("whiten_batch") else out


def _group(method: str, p: dict[str, Any], rows: list[Row]) -> list[list[float]]:
    rules = {
        "pass": lambda: fusion.pass_group(rows, p),
        "pass-min": lambda: fusion.pass_min_group(rows, p),
        "pure": lambda: pure.pure_group(rows, p),
        "grpo": lambda: others.outcome_group(rows, "masked_norm", p["ddof"], p["eps"]),
        "dr-grpo": lambda: others.outcome_group(rows, "center"),
        "rloo": lambda: others.outcome_group(rows, "leave_one_out"),
        "grpo-process": lambda: others.process_group(rows, p),
        "turn-return": lambda: turns.turn_group(rows, p),
        "gdpo": lambda: others.gdpo_group(rows, p),
        "gigpo": lambda: gigpo.gigpo_group(rows, p),
        "adca": lambda: others.adca_group(rows, p["alpha"]),
        "prime": lambda: others.prime_group(rows, p),
    }
    return rules[method]()
