"""The estimators under contract: every method, in every setting that takes another path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import stepcredit as sc

STREAMS = {"process": 1.0, "judge": 0.5, "teacher": 0.25, "outcome": 1.0, "format": 0.5}
READY = {"process": 1.0, "critic": 0.5, "outcome": 1.0, "format": 0.5}


@dataclass(frozen=True)
class Case:
    """An estimator by method and params, and the batches it takes.

    Args:
        signals: the kinds of process signal it reads.
        options: what the batches must hold, as `random_rows` names it.
        batch_wide: its last step normalizes over the whole batch, by design.
    """

    method: str
    params: dict[str, Any] = field(default_factory=dict)
    signals: tuple[str, ...] = ("steps", "tokens")
    options: dict[str, Any] = field(default_factory=dict)
    batch_wide: bool = False

    def estimator(self) -> sc.Estimator:
        return sc.estimator(self.method, **self.params)


def _pass(signals: tuple[str, ...] = ("steps", "tokens"), **params: Any) -> Case:
    return Case("pass", params, signals, {"gaps": True})


def _led(**params: Any) -> Case:
    """Every row has the leading stream; batches with gaps are those of `test_absent_streams`."""
    return Case("pass", {"weights": STREAMS, **params}, ("streams",))


def _pure(**params: Any) -> Case:
    return Case("pure", params, options={"gaps": True}, batch_wide="whiten_batch" in params)


def _gigpo(signals: tuple[str, ...] = ("steps",), levels: int = 1, **params: Any) -> Case:
    return Case("gigpo", params, signals, {"gaps": signals != ("none",), "states": levels})


KNOWN = {"outcome": "known"}
STEPS = ("steps",)
TOKENS = ("tokens",)

CASES: dict[str, Case] = {
    "pass": _pass(),
    "pass-center": _pass(operator="center", k=1.0),
    "pass-leave-one-out": _pass(operator="leave_one_out", k=0.0),
    "pass-abs-max": _pass(operator="abs_max"),
    "pass-abs-max-outer-norm": _pass(operator="abs_max", outcome_operator="masked_norm"),
    "pass-ddof-0": _pass(ddof=0, eps=0.0),
    "pass-k0": _pass(k=0.0),
    "pass-k1": _pass(k=1.0),
    "pass-process-scope": _pass(scope="process"),
    "pass-no-gate": _pass(gate=False),
    "pass-match-std": _pass(match_std=True),
    "pass-match-std-process-scope": _pass(match_std=True, scope="process"),
    "pass-recenter": _pass(recenter=True),
    "pass-recenter-match-std": _pass(recenter=True, match_std=True, scope="process"),
    "pass-clip": _pass(clip=0.5),
    "pass-weights": _pass(weights=(2.0, 1.0, 0.5)),
    "pass-runs": _pass(chunks="runs"),
    "pass-tokens": _pass(chunks="tokens"),
    "pass-steps": _pass(STEPS, chunks="steps"),
    "pass-group-runs": _pass(TOKENS, chunks="group_runs", operator="center"),
    "pass-streams": _pass(("streams",), weights=STREAMS),
    "pass-streams-from-teacher": _led(chunks_from="teacher"),
    "pass-streams-from-judge-runs": _led(chunks_from="judge", chunks="runs"),
    "pass-ready-made": _pass(("streams",), weights=READY),
    "pass-ready-made-process-scope": _pass(
        ("streams",), weights=READY, scope="process", match_std=True, recenter=True
    ),
    "pass-read-mean": _pass(read="mean"),
    "pass-read-sum": _pass(read="sum", scope="process", match_std=True),
    "pass-read-mean-runs": _pass(read="mean", chunks="runs", recenter=True),
    "pass-read-sum-runs": _pass(read="sum", chunks="runs", operator="center"),
    "pass-read-ends": _pass(read="ends"),
    "pass-read-ends-tokens": _pass(read="ends", chunks="tokens", match_std=True),
    "pass-read-ends-windows": _pass(read="ends", chunks={"windows": {"size": 3}}, scope="process"),
    "pass-read-ends-streams": _pass(("streams",), read="ends", weights=STREAMS),
    "pass-read-mean-windows": _pass(read="mean", chunks={"windows": {"size": 3}}),
    "pass-read-mean-streams": _pass(("streams",), read="mean", weights=STREAMS),
    "pass-read-sum-streams-from-teacher": _led(
        chunks_from="teacher", chunks="sign_runs", read="sum"
    ),
    "pass-read-mean-ready-made": _pass(("streams",), weights=READY, read="mean"),
    "pass-cut-points": _pass(chunks={"cut_points": {"below": 0.6, "per_chunk": 2}}),
    "pass-cut-points-mean": _pass(chunks="cut_points", read="mean", scope="process"),
    "pass-gamma0": _pass(gamma=0.0),
    "pass-gamma": _pass(gamma=0.9),
    "pass-gamma-runs": _pass(gamma=0.5, chunks="runs", scope="process", k=1.0),
    "pass-gamma-match-std": _pass(gamma=0.7, match_std=True, recenter=True),
    "pass-no-process": _pass(("none",)),
    "pass-min": Case("pass-min", options={"gaps": True}),
    "pass-min-strict": Case("pass-min", {"temperature": 0}, options={"gaps": True}),
    "pass-min-of-the-steps": Case("pass-min", {"outcome_in_min": 0.0}, options={"gaps": True}),
    "pass-min-strict-half": Case(
        "pass-min", {"temperature": 0, "outcome_in_min": 0.5}, options={"gaps": True}
    ),
    "pass-min-streams": Case(
        "pass-min",
        {"weights": STREAMS, "outcome_operator": "center"},
        ("streams",),
        {"gaps": True},
    ),
    "pass-min-abs-max": Case("pass-min", {"operator": "abs_max"}, options={"gaps": True}),
    "pass-min-no-gate": Case("pass-min", {"gate": False, "weights": (0.5, 1.0, 0.3)}),
    "pure": _pure(),
    "pure-strict": _pure(temperature=0),
    "pure-per-step": _pure(baseline="per_step", process_weight=0.5),
    "pure-rollout": _pure(baseline="rollout"),
    "pure-rollout-strict": _pure(baseline="rollout", temperature=0, outcome_weight=0.0),
    "pure-per-slot": _pure(baseline="per_slot", max_length=16),
    "pure-future-min": _pure(form="future_min", baseline="rollout"),
    "pure-future-min-per-slot": _pure(
        form="future_min", baseline="per_slot", max_length=16, process_weight=0.5
    ),
    "pure-sum": _pure(form="sum"),
    "pure-sum-per-step": _pure(form="sum", baseline="per_step"),
    "pure-sum-rollout": _pure(form="sum", baseline="rollout"),
    "pure-sum-whitened": _pure(form="sum", whiten_batch=True, baseline="per_slot", max_length=16),
    "pure-clip": _pure(clip=0.3),
    "pure-whitened": _pure(whiten_batch=True),
    "grpo": Case("grpo", options=KNOWN),
    "grpo-ddof-0": Case("grpo", {"ddof": 0, "eps": 0.0}, options=KNOWN),
    "grpo-clip": Case("grpo", {"clip": 0.5}, options=KNOWN),
    "dr-grpo": Case("dr-grpo", options=KNOWN),
    "rloo": Case("rloo", options=KNOWN),
    "grpo-process-sum": Case("grpo-process"),
    "grpo-process-process": Case("grpo-process", {"pooling": "process"}),
    "grpo-process-union": Case("grpo-process", {"pooling": "union", "weights": (1.0, 2.0, 0.5)}),
    "grpo-process-gamma": Case("grpo-process", {"gamma": 0.5, "k": 0.7}),
    "grpo-process-gamma0": Case("grpo-process", {"pooling": "process", "gamma": 0.0}),
    "turn-return": Case("turn-return", options={"gaps": True}),
    "turn-return-gamma": Case("turn-return", {"gamma": 0.9, "process_weight": 0.5}),
    "turn-return-trajectories": Case(
        "turn-return", {"baseline": "trajectories", "gamma": 0.5}, options={"gaps": True}
    ),
    "turn-return-no-baseline": Case("turn-return", {"baseline": "none", "outcome_weight": 2.0}),
    "turn-return-clip": Case("turn-return", {"clip": 0.5}),
    "mix": Case("mix", options=KNOWN | {"gaps": True}),
    "mix-teacher": Case("mix", {"first": {"opd": {"clip": 2.0}}, "second": "pure", "share": 0.25}),
    "mix-streams": Case(
        "mix",
        {"first": {"pass": {"weights": STREAMS}}, "second": "rloo", "clip": 0.5},
        ("streams",),
        KNOWN,
    ),
    "mix-nested": Case(
        "mix", {"first": {"mix": {"second": "adca"}}, "second": "turn-return"}, options=KNOWN
    ),
    "sign-size": Case("sign-size", options=KNOWN | {"gaps": True}),
    "sign-size-teacher": Case(
        "sign-size", {"second": "opd", "clip": 1.0}, ("none",), options=KNOWN
    ),
    "redistribute": Case("redistribute", options=KNOWN),
    "redistribute-sharp": Case(
        "redistribute",
        {"outcome": "rloo", "temperature": 0.1, "by_sign": False},
        options=KNOWN,
    ),
    "reweight": Case("reweight", signals=("none",), options=KNOWN),
    "reweight-entropy": Case(
        "reweight", {"outcome": "dr-grpo", "by": "entropy"}, ("entropy",), KNOWN
    ),
    "rlsd": Case("rlsd", signals=("none",), options=KNOWN),
    "rlsd-half": Case(
        "rlsd", {"outcome": "rloo", "eps": 0.5, "share": 0.5}, ("none",), options=KNOWN
    ),
    "reinforce-plus-plus": Case("reinforce-plus-plus", options=KNOWN, batch_wide=True),
    "reinforce-plus-plus-pass": Case(
        "reinforce-plus-plus",
        {"of": {"pass": {"operator": "center", "clip": 2.0}}, "clip": 1.5},
        options={"gaps": True},
        batch_wide=True,
    ),
    "reinforce-plus-plus-streams": Case(
        "reinforce-plus-plus",
        {"of": {"pass": {"weights": STREAMS}}},
        ("streams",),
        batch_wide=True,
    ),
    "gdpo": Case("gdpo", batch_wide=True),
    "gdpo-token": Case("gdpo", {"batch_norm": "token"}, batch_wide=True),
    "gdpo-eps": Case("gdpo", {"eps": 0.5}, batch_wide=True),
    "opd": Case("opd", signals=("none",)),
    "opd-clip": Case("opd", {"coefficient": 2.0, "clip": 0.5}, signals=("none",)),
    "g-opd": Case("g-opd", signals=("none",)),
    "gigpo": _gigpo(),
    "gigpo-center": _gigpo(norm="center", gamma=1.0, weights=(0.5, 1.0, 0.3)),
    "gigpo-scores-alone": _gigpo(outcome_in_return=False, gate=False),
    "gigpo-no-discount": _gigpo(gamma=0.0, clip=0.5),
    "gigpo-no-scores": _gigpo(("none",)),
    "gigpo-levels": _gigpo(levels=3),
    "gigpo-levels-weighted": _gigpo(levels=2, combine="weighted"),
    "gigpo-levels-alpha": _gigpo(levels=3, combine="weighted", alpha=2.0, norm="center"),
    "adca": Case("adca"),
    "prime": Case("prime", signals=("none",), batch_wide=True),
    "prime-weighted": Case("prime", {"process_weight": 5.0}, signals=("none",), batch_wide=True),
    "prime-batch": Case("prime", {"norm": "batch"}, signals=("none",), batch_wide=True),
    "prime-batch-raw": Case(
        "prime", {"norm": "batch", "whiten_batch": False}, signals=("none",), batch_wide=True
    ),
    "prime-raw": Case("prime", {"whiten_batch": False}, signals=("none",)),
}
