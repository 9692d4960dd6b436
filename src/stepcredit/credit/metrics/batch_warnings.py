"""Warnings about a batch whose credit is not what its settings look like, from its metrics."""

from __future__ import annotations

from collections.abc import Mapping

from stepcredit.data.rollouts import Rollouts
from stepcredit.data.streams import Stream

LARGE_SHARE = 1 / 3
"""A share of the credit above which the format reward is named."""
NEARLY_CONSTANT = 0.02
"""A std within groups, as a part of a stream's scale, below which the stream is almost constant."""
SMALL_SHARE = 0.1
"""A share of the credit below which an almost constant stream does no harm."""


class CreditWarning(UserWarning):
    """A batch was credited as the settings say, but probably not as they were meant."""


def credit_warnings(
    rollouts: Rollouts, figures: Mapping[str, float], *, right_above: float = 0.0
) -> dict[str, str]:
    """Warnings about a batch's credit, one sentence per kind.

        all-gated                no response kept its format
        format-share             the format reward has more than a third of the credit, and some
                                 response broke its format
        nearly-constant/STREAM   the std within groups is below 2 % of the scores' scale, but the
                                 stream has more than a tenth of the credit
        right-above              outcomes differ, but all of them are right, or all wrong

    The scale of scores between 0 and 1 is 1; the scale of other scores is their largest size.

    Args:
        rollouts: the batch.
        figures: its `training_metrics`.
        right_above: as in `training_metrics`.

    Returns:
        {kind: sentence}; a trainer prints each kind once.

    Example:
        >>> import stepcredit as sc
        >>> from stepcredit.credit.metrics import training_metrics
        >>> r = sc.Rollouts([0, 0], lengths=[1, 1], outcome=[1.0, 0.5])
        >>> list(credit_warnings(r, training_metrics(r, sc.GRPO())))
        ['right-above']
    """
    rollouts = rollouts.joined()
    found = {
        "all-gated": _all_gated(rollouts, figures),
        "format-share": _format_share(figures),
        "right-above": _right_above(rollouts, right_above),
    }
    for name, stream in rollouts.streams.items():
        found[f"nearly-constant/{name}"] = _nearly_constant(name, stream, figures)
    return {kind: sentence for kind, sentence in found.items() if sentence is not None}


def _all_gated(rollouts: Rollouts, figures: Mapping[str, float]) -> str | None:
    if figures.get("format_gated_share") != 1:
        return None
    line = f"all {rollouts.num_rollouts} responses broke their format, so none of them learns from"
    line += " its outcome or its steps"
    formats = rollouts.format[rollouts.has_format]
    if formats.numel() and float(formats.max()) <= 0 and float(formats.min()) < 0:
        most = float(formats.max()) + 0.0  # without the sign of -0.0
        return f"{line}; the format reward is at most {most:g}: set format_gate"
    return f"{line}; look at the template of the format reward"


def _format_share(figures: Mapping[str, float]) -> str | None:
    share, gated = figures.get("share/format", 0.0), figures.get("format_gated_share", 0.0)
    if share <= LARGE_SHARE or not 0 < gated < 1:
        return None
    line = f"the format reward has {share:.0%} of the credit, where {gated:.0%} of the responses"
    line += " broke their format: with the gate, these learn it by the sum of all weights"
    return f"{line}; set gate=False, or give it a smaller weight"


def _right_above(rollouts: Rollouts, right_above: float) -> str | None:
    known = rollouts.outcome[rollouts.has_outcome]
    low, high = (float(known.min()), float(known.max())) if known.numel() else (0.0, 0.0)
    if low == high or low <= right_above < high:
        return None
    line = f"the outcomes go from {low:g} to {high:g}, so all are"
    line += f" {'right' if low > right_above else 'wrong'} at right_above={right_above:g}:"
    return f"{line} agreement and the figures of right and wrong responses say nothing"


def _nearly_constant(name: str, stream: Stream, figures: Mapping[str, float]) -> str | None:
    share, variance = figures.get(f"share/{name}", 0.0), figures.get(f"variance/{name}", 0.0)
    if share <= SMALL_SHARE or not stream.values.numel():
        return None
    low, high = float(stream.values.min()), float(stream.values.max())
    scale = 1.0 if low >= 0 and high <= 1 else max(abs(low), abs(high))
    if not 0 < variance**0.5 < NEARLY_CONSTANT * scale:
        return None
    line = f"the stream {name!r} is almost constant (a std of {variance**0.5:.2g} within groups)"
    line += f" but has {share:.0%} of the credit; a method that divides it by its std credits its"
    return f"{line} smallest differences: give it a smaller weight, or set pass's min_std"
