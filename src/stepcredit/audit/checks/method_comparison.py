"""Methods side by side: how far they agree, and on which responses they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import isfinite
from typing import Any

import numpy as np

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.finding import AuditFigure, CheckResult, EvidencePlace, Finding, Unchecked
from stepcredit.credit.metrics.agreement import Agreement
from stepcredit.data.advantages import Advantages

NAME = "methods"
DIFFERENT = 0.5
"""An agreement below which two methods teach different things: a rank correlation of responses,
or a share of tokens with the same sign, of which chance gives a half."""
PLACES = 5
"""Responses shown for a pair of methods."""
TOKENS_AT_ONCE = 500_000
"""Tokens that are compared at once: a table of all methods over them stays small."""


def agreement_of(advantages: Sequence[Advantages]) -> Agreement:
    """How far several methods' advantages of the same rollouts agree.

        rank agreement  Spearman's, over the responses' mean advantages
        same sign       share of tokens whose advantages have one sign (0 is a sign of its own)
        cosine          a . b / (|a| |b|), over tokens

    Args:
        advantages: of each method, for the same rollouts.

    Returns:
        An `Agreement`; its measures are NaN for a method whose advantages are constant.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], lengths=[1, 2], outcome=[1.0, 0.0])
        >>> found = agreement_of([sc.GRPO()(r), sc.RLOO()(r)])
        >>> round(found.cosine(0, 1), 6), found.sign_agreement(0, 1)
        (1.0, 1.0)
    """
    agreement = Agreement(len(advantages))
    packed = [each.packed().numpy() for each in advantages]
    lengths = advantages[0].lengths.numpy()
    ends = np.cumsum(lengths)
    row = 0
    while row < len(lengths):
        start = int(ends[row] - lengths[row])
        last = max(row + 1, int(np.searchsorted(ends, start + TOKENS_AT_ONCE, side="right")))
        part = np.stack([values[start : ends[last - 1]] for values in packed])
        agreement.add(part.astype(np.float64), lengths[row:last])
        row = last
    return agreement


@register_check(NAME)
def check_methods(data: AuditInput) -> CheckResult:
    """How far the methods agree, in pairs, and which responses they rank most differently."""
    names = list(data.methods)
    if len(names) < 2:
        reason = "A comparison needs at least two methods that can run on this file."
        return CheckResult(unchecked=(Unchecked(NAME, "--method", reason),))
    agreement = agreement_of([data.advantages[name] for name in names])
    figures = [*_of_pairs(agreement, names), *_of_methods(agreement, names)]
    least = _least_alike(agreement)
    findings = () if least is None else _different(agreement, names, least, figures)
    series = _series(agreement, names, least)
    return CheckResult(tuple(figures), findings, series=series)


def _of_pairs(agreement: Agreement, names: Sequence[str]) -> Iterator[AuditFigure]:
    responses = sum(means.shape[1] for means in agreement.means)
    for a, b in combinations(range(len(names)), 2):
        pair = f"{names[a]}, {names[b]}"
        rows = [
            ("rank correlation of the responses' mean advantages", agreement.rank_agreement(a, b)),
            ("share of tokens whose advantages have the same sign", agreement.sign_agreement(a, b)),
            ("cosine of the advantages", agreement.cosine(a, b)),
        ]
        for about, value in rows:
            by_response = about.startswith("rank")
            count, of = (responses, "responses") if by_response else (agreement.tokens, "tokens")
            yield AuditFigure(about, _known(value), count, of, method=pair)


def _of_methods(agreement: Agreement, names: Sequence[str]) -> Iterator[AuditFigure]:
    for a, name in enumerate(names):
        cosine = _known(agreement.cosine_with_others(a))
        label = "cosine of the advantages with those of the other methods together"
        yield AuditFigure(label, cosine, agreement.tokens, "tokens", method=name)


def _known(value: float) -> float | None:
    """The number; None in place of NaN."""
    return value if isfinite(value) else None


def _least_alike(agreement: Agreement) -> tuple[int, int] | None:
    """The pair of the lowest rank agreement; None where no pair has one."""
    pairs = combinations(range(agreement.methods), 2)
    known = {pair: agreement.rank_agreement(*pair) for pair in pairs}
    known = {pair: value for pair, value in known.items() if isfinite(value)}
    return min(known, key=lambda pair: known[pair]) if known else None


def _different(
    agreement: Agreement, names: Sequence[str], pair: tuple[int, int], figures: list[AuditFigure]
) -> tuple[Finding, ...]:
    rank, same = agreement.rank_agreement(*pair), agreement.sign_agreement(*pair)
    if rank >= DIFFERENT and same >= DIFFERENT:
        return ()
    first, second = (names[at] for at in pair)
    sentence = (
        f"{first} and {second} teach different things from this file: they rank the responses"
    )
    sentence += f" with a correlation of {rank:.2f}, and {same:.0%} of the tokens get advantages of"
    sentence += " the same sign."
    advice = "Look at the responses named here before you choose between them with `--method`."
    places = tuple(EvidencePlace(row) for row, _ in agreement.apart(PLACES, among=pair))
    evidence = tuple(figure for figure in figures if figure.method == f"{first}, {second}")
    topic = "methods that teach different things"
    return (Finding(NAME, "note", sentence, evidence, advice, places, 1 - same, topic),)


def _series(
    agreement: Agreement, names: Sequence[str], least: tuple[int, int] | None
) -> Mapping[str, Any]:
    """Matrices of all pairs, and the responses on which the least alike pair differs most."""
    every = range(len(names))
    apart = [] if least is None else agreement.apart(PLACES, among=least)
    measures = {
        "rank_correlation": agreement.rank_agreement,
        "same_sign": lambda a, b: 1.0 if a == b else agreement.sign_agreement(min(a, b), max(a, b)),
        "cosine": agreement.cosine,
    }
    matrices = {
        name: [[_known(measure(a, b)) for b in every] for a in every]
        for name, measure in measures.items()
    }
    pair = [] if least is None else [names[at] for at in least]
    responses = [{"row": row, "mean_advantages": means.tolist()} for row, means in apart]
    return {"methods": list(names), **matrices, "least_alike": pair, "apart": responses}
