"""Stored advantages at tokens that are not trained, and those that no method gives."""

from __future__ import annotations

import numpy as np

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.checks.lints import first_places
from stepcredit.audit.finding import AuditFigure, CheckResult, EvidencePlace, Finding, Unchecked
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.stored_advantages import STORED, StoredAdvantages, scale_of
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.rules import counted

MASKED, NO_METHOD = "masked tokens", "stored advantages"
ALL_AGREE = 0.99
"""Responses whose stored advantages are a method's; below, the method is another one."""


@register_check(MASKED)
def check_masked(data: AuditInput) -> CheckResult:
    """Stored advantages at tokens that are not trained."""
    stored = data.stored
    if stored is None:
        return _nothing_stored(MASKED)
    return masked_credit(data.batch, stored)


def masked_credit(batch: LoggedBatch, stored: StoredAdvantages) -> CheckResult:
    """The share of tokens that are not trained and hold an advantage.

    Args:
        batch: the log.
        stored: its advantages.

    Returns:
        A fault where there is such a token; unchecked where every token is trained.
    """
    masked = int((~stored.trained).sum())
    if not masked:
        reason = "Every token is trained, so none can be credited by mistake."
        return CheckResult(unchecked=(Unchecked(MASKED, "loss_mask", reason),))
    credited = stored.credited_masked()
    count = int(credited.sum())
    name = "share of the tokens not trained that hold an advantage"
    figure = AuditFigure(name, count / masked, masked, "tokens", worse="higher")
    if not count:
        return CheckResult((figure,))
    row = stored.row_of_token(int(credited.argmax()))
    sentence = f"{count} of {masked} tokens that are not trained hold an advantage; the first is in"
    sentence += f" line {batch.line(row)} of {batch.source}."
    advice = "Multiply the advantages by `loss_mask` before the loss."
    places = (EvidencePlace(row),)
    topic = "advantages at tokens that are not trained"
    finding = Finding(MASKED, "fault", sentence, (figure,), advice, places, count / masked, topic)
    return CheckResult((figure,), (finding,))


@register_check(NO_METHOD)
def check_stored(data: AuditInput) -> CheckResult:
    """Stored advantages that none of the compared methods gives."""
    stored = data.stored
    if stored is None:
        return _nothing_stored(NO_METHOD)
    if not is_computable(data.batch.rollouts):
        return shown_alone(NO_METHOD, stored)
    name = "share of responses whose stored advantages are the method's"
    shares = {
        method: float(stored.agreeing(stored.expected(advantages)).mean())
        for method, advantages in data.advantages.items()
    }
    count = len(stored.rows)
    figures = tuple(
        AuditFigure(name, share, count, "responses", method=method, worse="lower")
        for method, share in shares.items()
    )
    if not shares or max(shares.values()) >= ALL_AGREE:
        return CheckResult(figures)
    best = max(shares, key=lambda method: shares[method])
    sentence = "The advantages in the file are those of none of the methods compared"
    if shares[best]:
        nearest = f"the nearest, {best!r}, gives those of {shares[best]:.0%}"
        sentence += f"; {nearest} of {counted(count, 'response')}"
    advice = "`stepcredit audit --conformance` with the trainer's `--method` and `--set` names the "
    advice += "fault, if it is a known one."
    places = first_places(stored.rows[~stored.agreeing(stored.expected(data.advantages[best]))])
    share = 1 - shares[best]
    topic = "stored advantages of none of the methods"
    finding = Finding(NO_METHOD, "warn", f"{sentence}.", figures, advice, places, share, topic)
    return CheckResult(figures, (finding,))


def is_computable(rollouts: Rollouts) -> bool:
    """Whether rollouts hold anything that a method could compute advantages from."""
    return bool(rollouts.streams or rollouts.logprobs or rollouts.has_outcome.any())


def shown_alone(check: str, stored: StoredAdvantages) -> CheckResult:
    """The stored advantages in figures, for a log that no method can compute them from again.

    Args:
        check: the check that would compare them.
        stored: the log's advantages.
    """
    values, tokens = stored.values[stored.trained], int(stored.trained.sum())
    sizes = np.add.reduceat(stored.trained, stored.counts.cumsum() - stored.counts, dtype=np.int64)
    starts = (sizes.cumsum() - sizes)[sizes > 0]
    one = np.maximum.reduceat(values, starts) == np.minimum.reduceat(values, starts)
    figures = (
        AuditFigure(
            "stored advantages, root mean square without 0", scale_of(values), tokens, "tokens"
        ),
        AuditFigure("stored advantages, share of 0", float((values == 0).mean()), tokens, "tokens"),
        AuditFigure(
            "share of responses with one stored advantage", float(one.mean()), len(one), "responses"
        ),
    )
    reason = (
        "The rows hold advantages, but no outcome, score or log-prob to compute them from: they "
    )
    reason += "are shown, and not compared."
    return CheckResult(figures, unchecked=(Unchecked(check, "outcome", reason),))


def _nothing_stored(check: str) -> CheckResult:
    reason = "No row holds the advantages that a trainer computed."
    return CheckResult(unchecked=(Unchecked(check, STORED, reason),))
