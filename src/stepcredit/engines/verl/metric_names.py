"""Names of metrics in verl: those that it averages, those known early, and shares of a step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from stepcredit.credit.metrics.metric_table import PREFIX
from stepcredit.engines.scoring_costs import (
    SECONDS,
    STEP_SHARE,
    Prices,
    ScoringCost,
    cost_metrics,
    step_shares,
    summed_costs,
)

EARLY = (PREFIX, "actor/")
"""Beginnings of metrics that are known when verl saves a checkpoint."""
OF_VERL = (
    *("actor/", "critic/", "prompt_length/", "response_length/", "response_length_non_aborted/"),
    *("response/", "num_turns/", "training/", "perf/", "timing_s/", "timing_per_token_ms/"),
    *("rollout_corr/", "global_seqlen/", "separate_async/"),
)
"""Beginnings of metrics that verl 0.9.1 logs in each step itself."""


def safe_name(name: str) -> str:
    """A metric's name without min, max, sum and total that does not end with /lr or _lr.

    verl averages a metric over the batches of a step, unless its name has one of these.

    Example:
        >>> safe_name("share/gemini"), safe_name("share/prm"), safe_name("share/prm_lr")
        ('share/gem-ini', 'share/prm', 'share/prm_l-r')
    """
    words = r"m(?=in|ax)|s(?=um)|t(?=otal)|(?<=[/_])l(?=r$)"
    return re.sub(words, r"\g<0>-", name, flags=re.IGNORECASE)


def is_early(name: str) -> bool:
    """Whether a metric is known when verl saves a checkpoint, so that it can stop a run.

    Example:
        >>> is_early("stepcredit/length"), is_early("response_length/mean")
        (True, False)
    """
    return name.startswith(EARLY) and not name.startswith(PREFIX + STEP_SHARE)


def logged_costs(
    batches: Sequence[Mapping[str, ScoringCost]], prices: Prices | None = None
) -> dict[str, float]:
    """What scoring took in a step: the sum over its batches, where verl would log their mean.

    Args:
        batches: the costs of each, by stream.
        prices: as in `cost_metrics`.

    Example:
        >>> logged_costs([{"prm": ScoringCost(1.0)}, {"prm": ScoringCost(2.0)}])
        {'stepcredit/scoring_seconds/prm': 3.0}
    """
    found = cost_metrics(summed_costs(batches), prices)
    return {f"{PREFIX}{safe_name(name)}": value for name, value in found.items()}


def scoring_shares(metrics: Mapping[str, float], seconds: float) -> dict[str, float]:
    """The shares of scoring in a step's time.

    Args:
        metrics: of the step, with `scoring_seconds`.
        seconds: the step's time.

    Example:
        >>> scoring_shares({"stepcredit/scoring_seconds/prm": 2.0}, 8.0)
        {'stepcredit/scoring_step_share/prm': 0.25}
    """
    scoring = {
        name.removeprefix(PREFIX + SECONDS): float(value)
        for name, value in metrics.items()
        if name.startswith(PREFIX + SECONDS)
    }
    return {f"{PREFIX}{name}": value for name, value in step_shares(scoring, seconds).items()}
