"""Resolution mismatch: whether the chunks that are credited fit the grain of the signal."""

from __future__ import annotations

from collections.abc import Iterator

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.chunk_measures import Resolution, TokenSignal, resolution_of
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding, Unchecked, Worse
from stepcredit.audit.step_credit import chunk_ends_of, read_streams
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.methods.grpo_process import ProcessGRPO
from stepcredit.credit.methods.pass_ import PASS
from stepcredit.data.streams import Steps, Stream

NAME = "resolution"
MOST = 0.5
"""A share above which most of what is counted shows the fault."""
LAST_SAYS = 0.7
"""A correlation of a chunk's last token with its mean below which the last token does not stand for
the chunk: it then explains less than half of the variance."""
FEW_CHUNKS = 20
"""Chunks below which a share says too little to report it."""


@register_check(NAME)
def check_resolution(data: AuditInput) -> CheckResult:
    """Whether each method's chunks fit the streams that it reads."""
    rollouts = data.batch.rollouts
    figures, findings = list[AuditFigure](), list[Finding]()
    sizes, signals = dict[str, dict[int, int]](), dict[str, TokenSignal | None]()
    for name, method in data.methods.items():
        streams = read_streams(method, rollouts)
        ends = chunk_ends_of(method, rollouts) if streams else None
        for label, stream in streams.items():
            if label not in signals:
                signals[label] = TokenSignal.of(stream, rollouts)
            signal = signals[label]
            if ends is None or signal is None:
                continue
            found = resolution_of(ends, signal, data.advantages[name])
            own = list(_figures(found, name, label))
            figures += own
            findings += _findings(found, method, stream, tuple(own))
            sizes[f"{name} ({label})"] = found.sizes
    if not figures:
        reason = "No method that is compared reads a process signal of this file."
        return CheckResult(unchecked=(Unchecked(NAME, "step_scores", reason),))
    return CheckResult(tuple(figures), tuple(findings), series={"tokens_per_chunk": sizes})


def _figures(found: Resolution, method: str, stream: str) -> Iterator[AuditFigure]:
    tokens, chunks, several = (found.tokens, "tokens"), (found.chunks, "chunks"), found.last.chunks
    rows: list[tuple[str, float | None, int, str, Worse]] = [
        ("chunks per response", found.chunks / found.responses, found.responses, "responses", ""),
        ("tokens per chunk", found.tokens / found.chunks, *chunks, ""),
        ("share of chunks of one token", found.one_token_share, *chunks, ""),
        ("share of the signal's variance inside chunks", found.within_share, *tokens, "higher"),
        (
            "share of credit on chunks that begin where the signal did not change",
            found.unchanged_share,
            *tokens,
            "higher",
        ),
        (
            "correlation of the signal at a chunk's last token with its mean over the chunk",
            found.last.correlation,
            several,
            "chunks",
            "",
        ),
        (
            "share of chunks whose last token and mean have opposite signs",
            found.last.opposite,
            several,
            "chunks",
            "",
        ),
    ]
    for name, value, count, of, worse in rows:
        yield AuditFigure(name, value, count, of, method=method, stream=stream, worse=worse)


def _findings(
    found: Resolution, method: Estimator, stream: Stream, figures: tuple[AuditFigure, ...]
) -> list[Finding]:
    if found.chunks < FEW_CHUNKS:
        return []
    name, label = figures[0].method, figures[0].stream
    reports = [
        _single_tokens(found, method, stream, f"{name} on {label!r}", figures),
        _coarse(found, method, f"{name} on {label!r}", figures),
        _unchanged(found, method, f"{name} on {label!r}", figures),
    ]
    return [finding for finding in reports if finding is not None]


def _single_tokens(
    found: Resolution, method: Estimator, stream: Stream, of: str, evidence: tuple[AuditFigure, ...]
) -> Finding | None:
    """Chunks of one token each, under a signal that scores tokens."""
    if found.one_token_share <= MOST or isinstance(stream, Steps):
        return None
    sentence = (
        f"Of the chunks of {of}, {found.one_token_share:.0%} are single tokens: each token is"
    )
    sentence += " credited like a step of its own."
    advice = "Add the signal up over steps before it is credited: log `step_scores` in place of"
    advice += " `token_scores`."
    if isinstance(method, PASS | ProcessGRPO):
        advice = "Choose chunks of several tokens with `--set chunks=sign_runs`,"
        advice += ' `--set chunks=change_points`, or `--set \'chunks={"windows": {"size": 32}}\'`'
        advice += " with `--set read=mean`." if isinstance(method, PASS) else "."
    topic, share = f"chunks of one token, {of}", found.one_token_share
    return Finding(NAME, "warn", sentence, evidence, advice, share=share, topic=topic)


def _coarse(
    found: Resolution, method: Estimator, of: str, evidence: tuple[AuditFigure, ...]
) -> Finding | None:
    """Chunks inside which the signal differs."""
    within, says = found.within_share, found.last.correlation
    if within is None or within <= MOST or found.last.chunks < FEW_CHUNKS:
        return None
    sentence = f"Inside the chunks of {of} lie {within:.0%} of the signal's variance"
    topic = f"chunks inside which the signal differs, {of}"
    reads_last = not isinstance(method, PASS) or method.read == "last"
    if says is None or says >= LAST_SAYS or not reads_last:
        advice = "Choose finer chunks with `--set chunks=...`, where the signal's changes matter."
        sentence += "."
        return Finding(NAME, "note", sentence, evidence, advice, share=within, topic=topic)
    sentence += ", and a chunk's last token, which alone is read, says little of it (correlation"
    sentence += f" {says:.2f} with the chunk's mean)."
    advice = "Choose finer chunks with `--set chunks=...`."
    if isinstance(method, PASS):
        advice = "Read the whole chunk with `--set read=mean`, or choose finer chunks with"
        advice += " `--set chunks=...`."
    return Finding(NAME, "warn", sentence, evidence, advice, share=within, topic=topic)


def _unchanged(
    found: Resolution, method: Estimator, of: str, evidence: tuple[AuditFigure, ...]
) -> Finding | None:
    """Chunks that begin where the signal does not change."""
    share = found.unchanged_share
    if share is None or share <= MOST:
        return None
    sentence = (
        f"Of the credit of {of}, {share:.0%} is on chunks that begin where the signal did not"
    )
    sentence += " change: equal scores are counted once per chunk."
    advice = "Use a signal whose scores differ."
    if isinstance(method, PASS | ProcessGRPO):
        advice = "Make one chunk of neighbours with equal scores: `--set chunks=runs`."
    topic = f"chunks that begin where the signal did not change, {of}"
    return Finding(NAME, "note", sentence, evidence, advice, share=share, topic=topic)
