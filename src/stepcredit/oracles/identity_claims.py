"""Claims that are decided on one group of responses, or by arithmetic alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from jaxtyping import Float64

from stepcredit.credit import theory
from stepcredit.credit.method_registry import estimator
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Steps
from stepcredit.keys import keyed_generator
from stepcredit.oracles.claim import Claim, verdict_of

Scores = Sequence[Sequence[float]]
EQ8_GRID = tuple(
    product((-4.0, -1.0, 0.5, 2.0, 6.0), (2, 6, 20, 60), (0.3, 0.5, 0.7, 1.0), (-0.8, 0.05, 0.2))
)
"""Sums of chunk values, numbers of chunks, k, and values of one more chunk."""


def credit_of_steps(
    method: str, scores: Scores, outcomes: Sequence[float] = (), **settings: object
) -> list[list[float]]:
    """A method's advantages for one group of responses, one token per step.

    Args:
        method: its name.
        scores: one row of step scores per response.
        outcomes: one per response; none: they are unknown.
        settings: the method's fields.

    Example:
        >>> credit_of_steps("grpo-process", [[1.0], [0.0]], pooling="process", ddof=0, eps=0.0)
        [[1.0], [-1.0]]
    """
    rollouts = Rollouts(
        group=[0] * len(scores),
        process=Steps([list(range(len(row))) for row in scores], [list(row) for row in scores]),
        outcome=list(outcomes) or None,
    )
    return [row.tolist() for row in estimator(method, **settings)(rollouts).ragged()]


def _random_scores() -> Float64[np.ndarray, "response step"]:
    return keyed_generator(0, "oracles", "claims").uniform(-1.0, 1.0, (2_000, 5))


def _strict_minimum() -> Claim:
    scores, filler = _random_scores(), np.linspace(-1.0, 1.0, 41)
    lowest = scores.min(1)[:, None]
    rise = float((np.minimum(lowest, filler) - lowest).max())
    return Claim(
        "Filler can't raise a minimum, nor can more steps",
        "PURE; pass-min",
        verdict_of(rise <= 0),
        f"largest rise of a strict minimum by one more step: {rise:.3f}",
        (rise,),
    )


def _soft_minimum() -> Claim:
    fillers = np.linspace(0.0, 1.0, 1_001)
    one, twenty = (
        max(theory.softmin_bias([0.0, *[filler] * count], 0.1) for filler in fillers)
        for count in (1, 20)
    )
    return Claim(
        "Filler can't raise PURE's soft minimum, T = 0.1",
        "PURE",
        verdict_of(max(one, twenty) <= 0),
        f"one filler raises the total by up to {one:.3f}, twenty by up to {twenty:.3f}",
        (one, twenty),
    )


def _fewer_steps() -> Claim:
    scores = _random_scores()
    drop = float((scores[:, :-1].min(1) - scores.min(1)).min())
    share = float((scores[:, :-1].min(1) > scores.min(1)).mean())
    return Claim(
        "Fewer steps raise a minimum",
        "pass-min",
        verdict_of(drop >= 0 and share > 0),
        f"leaving out the last of five random steps never lowers it, and raises it in {share:.3f} "
        "of the responses",
        (share,),
    )


def _outcome_by_the_chunk() -> Claim:
    weights = [_outcome_weight(10, k=0.7), _outcome_weight(10, k=0), _outcome_weight(10, k=1)]
    apart = _outcome_weight(10, k=0.7, scope="process")
    return Claim(
        "The outcome is paid by the chunk below k = 1, under scope=fused",
        "stepcredit, of PASS Eqs. 4-7",
        verdict_of(weights[0] > 1.5),
        "weight of the outcome at the first of ten chunks: {:.3f} at k = 0.7, {:.3f} at k = 0, "
        "{:.3f} at k = 1; {:.3f} under scope=process".format(*weights, apart),
        (*weights, apart),
    )


def _outcome_weight(chunks: int, **settings: object) -> float:
    """How often the first chunk's advantage holds the standardized outcome."""
    equal = [[0.5] * chunks, [0.5] * chunks]
    long, _ = credit_of_steps("pass", equal, (1.0, 0.0), **settings)
    once, _ = credit_of_steps("grpo", equal, (1.0, 0.0))
    return long[0] / once[0]


def _equation_eight() -> Claim:
    printed = _wrong_signs(theory.eq8_change)
    first_order = _wrong_signs(theory.first_order_change)
    exact = _wrong_signs(lambda total, n, delta, k: delta - theory.admission_threshold(total, n, k))
    cases = len(EQ8_GRID)
    return Claim(
        "Eq. 8: one more chunk raises the path score iff its value is above k S/K",
        "PASS, Eq. 8",
        verdict_of(printed == 0),
        f"wrong sign in {printed} of {cases} cases; with T in the place of S in {first_order}, and "
        f"with the exact bound T [(1 + 1/K)^k - 1] in {exact}",
        (printed, cases, first_order, exact),
    )


def _wrong_signs(predicted: Callable[[float, int, float, float], float]) -> int:
    """In how many cases a prediction has another sign than the change of the path score."""
    wrong = 0
    for total, chunks, k, delta in EQ8_GRID:
        before = theory.path_score(total, chunks, k)
        change = theory.path_score(total + delta, chunks + 1, k) - before
        wrong += bool(np.sign(predicted(total, chunks, delta, k)) != np.sign(change))
    return wrong


def _finite_best_length() -> Claim:
    best = theory.best_padding(6.0, 6, 0.4, 0.7), theory.best_padding(6.0, 6, 0.4, 1.0)
    return Claim(
        "For every k in (0, 1] a finite length is best",
        "PASS",
        verdict_of(np.isfinite(best[0])),
        f"best number of fillers of value 0.4 after six chunks of value 1: {best[0]:.0f} at "
        f"k = 0.7, {best[1]:.0f} at k = 1",
        best,
    )


def _average_pays_good_filler() -> Claim:
    best = theory.best_padding(6.0, 6, 1.1, 1.0)
    return Claim(
        "With k = 1 a finite length is best, whatever the value of filler",
        "PASS",
        verdict_of(best == 0),
        f"best number of fillers whose value is 1.1 of the mean chunk: {best:.0f}",
        (best,),
    )


def _sums_pay_for_length() -> Claim:
    gaps = [_longer_less_shorter("sum", score) for score in (0.5, -0.5)]
    soft = [_longer_less_shorter("softmin", score) for score in (0.5, -0.5)]
    return Claim(
        "Summing rewards pays for length or fines it; a minimum does neither",
        "PURE; PASS",
        verdict_of(gaps[0] > 0 > gaps[1] and max(map(abs, soft)) < 1e-6),
        "first-step credit of six steps less that of three, all scores equal: sum {:+.3f} "
        "(scores 0.5), {:+.3f} (scores -0.5); softmin {:.3f}, {:.3f}".format(
            *gaps, *map(abs, soft)
        ),
        (*gaps, *map(abs, soft)),
    )


def _longer_less_shorter(form: str, score: float, baseline: str = "rollout") -> float:
    rows = [[score] * 6, [score] * 3]
    long, short = credit_of_steps("pure", rows, form=form, baseline=baseline)
    return long[0] - short[0]


def _baselines_per_step() -> Claim:
    good, bad = (-_longer_less_shorter("softmin", score, "per_step") for score in (0.5, -0.5))
    token = -_longer_less_shorter("softmin", -0.5, "per_token")
    whole = abs(_longer_less_shorter("softmin", -0.5, "rollout"))
    return Claim(
        "The baseline per_step favours responses of few steps",
        "PURE's authors",
        verdict_of(min(good, bad) > 0, in_part=good > 0),
        f"first-step credit of three steps less that of six, all scores equal: {good:+.3f} "
        f"(scores 0.5), {bad:+.3f} (scores -0.5); per_token, the default, {token:+.3f} (scores "
        f"-0.5); rollout {whole:.3f}",
        (good, bad, token, whole),
    )


def _pooling_silences() -> Claim:
    narrow, wide = (_union_share(spread) for spread in (0.05, 1.0))
    return Claim(
        "Standardizing pooled streams silences the process stream",
        "PASS, section 4.1",
        verdict_of(narrow < 0.5 and wide < 0.5, in_part=narrow < 0.5),
        f"std of the process part beside that of separate standardization: {narrow:.3f} if scores "
        f"spread a twentieth as far as outcomes, {wide:.3f} if they spread alike",
        (narrow, wide),
    )


def _union_share(spread: float) -> float:
    """Std of the steps' own values, pooled with the outcomes, over that of the steps alone."""
    scores = [[spread, 0.0, spread], [0.0, spread, 0.0]]
    pooled = {"pooling": "union", "weights": {"process": 1.0, "outcome": 0.0}}
    both = (_own_values(scores, **pooled), _own_values(scores, pooling="process"))
    return float(np.std(both[0]) / np.std(both[1]))


def _own_values(scores: Scores, **settings: object) -> list[float]:
    rows = credit_of_steps("grpo-process", scores, (1.0, 0.0), **settings)
    return [x for row in rows for x in (-np.diff([*row, 0.0])).tolist()]


def _min_error_bound() -> Claim:
    true, estimated = [-0.5, -0.49], [-0.49, -0.5]
    returns = [_strict_return(scores) for scores in (true, estimated)]
    error = max(abs(a - b) for a, b in zip(*returns, strict=True))
    return Claim(
        "If scores err by at most e, the min-form's return errs by at most e",
        "PURE",
        verdict_of(error <= 0.01 + 1e-9),
        f"scores (-0.5, -0.49) read as (-0.49, -0.5), e = 0.01: a return errs by {error:.3f}",
        (error,),
    )


def _strict_return(scores: Sequence[float]) -> list[float]:
    """The strict min-form return, through the estimator: a rival of score 0 has baseline 0."""
    rows = credit_of_steps("pure", [scores, [0.0]], temperature=0.0, baseline="rollout")
    return rows[0]


def _wrong_answer_paid() -> Claim:
    rows = credit_of_steps("pass", [[0.9, 0.9], [0.2, 0.2]], (0.0, 1.0), operator="abs_max", k=1.0)
    return Claim(
        "Under abs_max a wrong response can get a positive advantage",
        "stepcredit, of PASS Algorithm 1",
        verdict_of(rows[0][0] > 0),
        f"advantage of a wrong response with step scores 0.9: {rows[0][0]:.3f} under abs_max",
        (rows[0][0],),
    )


IDENTITY_CLAIMS: tuple[Callable[[], Claim], ...] = (
    _strict_minimum,
    _soft_minimum,
    _fewer_steps,
    _outcome_by_the_chunk,
    _equation_eight,
    _finite_best_length,
    _average_pays_good_filler,
    _sums_pay_for_length,
    _baselines_per_step,
    _pooling_silences,
    _min_error_bound,
    _wrong_answer_paid,
)
"""A function for each claim; it computes the claim's figure again."""
