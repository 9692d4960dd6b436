"""Claims that are decided by mean policy gradients: figures of the oracle table."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from stepcredit.oracles.claim import Claim, verdict_of
from stepcredit.oracles.contestants import EXACT, NO_SIGNAL, OracleRow
from stepcredit.oracles.step_scores import SIGNALS


class TableFigures:
    """The figures of an oracle table by method, name and signal.

    Args:
        rows: of the whole table.
    """

    def __init__(self, rows: Iterable[OracleRow]) -> None:
        self._rows = {(row.method, row.signal): row for row in rows}

    def __call__(self, method: str, name: str, signal: str = NO_SIGNAL) -> float:
        """The figure's mean."""
        return self._rows[method, signal].figures[name].mean


def _mean_gradient_on_filler(figure: TableFigures) -> Claim:
    names = ("pass-min", "pure", "pass", "pass scope=process k=0")
    exact, *push = (
        figure(EXACT, "filler"),
        *(figure(name, "filler", "hackable") for name in names),
    )
    shown = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, push, strict=True))
    return Claim(
        "A policy trained on a minimum has no incentive to write filler",
        "stepcredit, of pass-min",
        verdict_of(push[0] <= exact, in_part=push[0] < push[2]),
        f"growth of filler along the mean gradient, hackable signal: exact {exact:.3f}, {shown}",
        (exact, *push),
    )


def _baseline_grows_filler(figure: TableFigures) -> Claim:
    exact = figure(EXACT, "filler")
    names = ("pure", "pure baseline=rollout", "pure form=future_min baseline=rollout")
    push = [figure(name, "filler", "right") for name in names]
    return Claim(
        "PURE grows filler through its baseline per_token",
        "stepcredit, of PURE",
        verdict_of(push[1] <= exact, in_part=push[1] < push[0]),
        f"growth of filler along the mean gradient, right signal: exact {exact:.3f}; baseline "
        f"per_token {push[0]:.3f}, rollout {push[1]:.3f}; strict minimum and rollout {push[2]:.3f}",
        (exact, *push),
    )


def _outcome_in_the_minimum(figure: TableFigures) -> Claim:
    names = ("pass-min outcome_in_min=0", "pass-min outcome_in_min=1", "pass-min")
    values = [figure(EXACT, "stop"), *(figure(name, "stop", "hackable") for name in names)]
    return Claim(
        "An outcome in the minimum (c) takes away the incentive to stop early",
        "stepcredit, of pass-min",
        verdict_of(values[1] > 0 > values[2] > values[3]),
        "growth of early stops along the mean gradient, hackable signal: exact {:.3f}, c = 0 "
        "{:.3f}, c = 1 {:.3f}, c = 2 {:.3f}".format(*values),
        tuple(values),
    )


def _leave_one_out_is_exact(figure: TableFigures) -> Claim:
    names = ("rloo", "dr-grpo", "grpo")
    errors = [figure(name, "error") for name in names]
    return Claim(
        "The mean gradients of RLOO and Dr.GRPO have the exact direction, that of GRPO has not",
        "Dr.GRPO; RLOO",
        verdict_of(max(errors[:2]) < 1e-5 < errors[2]),
        "relative error of the mean gradient: "
        + ", ".join(f"{name} {error:.4f}" for name, error in zip(names, errors, strict=True)),
        tuple(errors),
    )


def _exact_signal_suffices(figure: TableFigures) -> Claim:
    names = ("pass scope=process k=0", "pass", "pure", "opd")
    errors = [figure(name, "error", "right") for name in names]
    return Claim(
        "Exact values of steps as process signal give the exact gradient",
        "stepcredit",
        verdict_of(max(errors) < 1e-3, in_part=min(errors) < 1e-3),
        "relative error of the mean gradient, right signal: "
        + ", ".join(f"{name} {error:.3f}" for name, error in zip(names, errors, strict=True)),
        tuple(errors),
    )


def _divide_length(figure: TableFigures) -> Claim:
    pairs = [(figure("pass k=0", "error", s), figure("pass", "error", s)) for s in SIGNALS]
    shown = [f"{s} {a:.3f} to {b:.3f}" for s, (a, b) in zip(SIGNALS, pairs, strict=True)]
    return Claim(
        "Divide-Length brings the mean gradient nearer to the exact one",
        "PASS",
        verdict_of(all(divided < plain for plain, divided in pairs)),
        f"relative error of the mean gradient from k = 0 to k = 0.7: {', '.join(shown)}",
        tuple(value for pair in pairs for value in pair),
    )


def _scale_confound(figure: TableFigures) -> Claim:
    names = ("k=0", "match_std=True", "")
    rows = [
        [figure(f"pass scope=process {name}".strip(), "error", s) for name in names]
        for s in SIGNALS
    ]
    shown = [f"{s} {a:.3f}, {b:.3f}, {c:.3f}" for s, (a, b, c) in zip(SIGNALS, rows, strict=True)]
    return Claim(
        "Divide-Length does this only by making the process part smaller",
        "stepcredit, of PASS",
        verdict_of(
            all(matched >= plain for plain, matched, _ in rows),
            in_part=all(divided < matched for _, matched, divided in rows),
        ),
        "relative error at k = 0, at k = 0.7 with the std of k = 0 (match_std), at k = 0.7: "
        f"{'; '.join(shown)} (scope=process)",
        tuple(value for row in rows for value in row),
    )


def _advantage_fusion(figure: TableFigures) -> Claim:
    names = ("pass k=0", "grpo-process pooling=union", "grpo-process", "pass", "grpo-process k=0.7")
    fused, union, summed, divided, shaped = errors = [
        figure(name, "error", "right") for name in names
    ]
    return Claim(
        "Separate standardization (Advantage Fusion) brings the mean gradient nearer than pooling",
        "PASS",
        verdict_of(fused < min(union, summed) and divided < shaped, in_part=divided < shaped),
        f"relative error, right signal: at k = 0 fused {fused:.3f}, union {union:.3f}, sum "
        f"{summed:.3f}; at k = 0.7 fused {divided:.3f}, sum {shaped:.3f}",
        tuple(errors),
    )


def _variance_for_bias(figure: TableFigures) -> Claim:
    names = ("rloo", "pass", "pass k=0", "pure")
    signals = (NO_SIGNAL, "right", "right", "right")
    both = [
        (figure(n, "variance", s), figure(n, "error", s))
        for n, s in zip(names, signals, strict=True)
    ]
    shown = [f"{n} {v:.2f} ({e:.3f})" for n, (v, e) in zip(names, both, strict=True)]
    (plain, _), *others = both
    return Claim(
        "A right process signal lowers the variance of the gradient, at the price of a bias",
        "stepcredit",
        verdict_of(all(variance < plain and error > 1e-3 for variance, error in others)),
        f"relative variance (and error): {', '.join(shown)}",
        tuple(value for pair in both for value in pair),
    )


GRADIENT_CLAIMS: tuple[Callable[[TableFigures], Claim], ...] = (
    _mean_gradient_on_filler,
    _baseline_grows_filler,
    _outcome_in_the_minimum,
    _leave_one_out_is_exact,
    _exact_signal_suffices,
    _variance_for_bias,
    _divide_length,
    _scale_confound,
    _advantage_fusion,
)
"""A function for each claim; it reads the figures of the oracle table."""
