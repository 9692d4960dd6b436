"""What credit pays, by the names of the audit: the mean advantage of kinds of steps and responses.

The rules are those of `stepcredit audit`, without intervals: a batch of a trainer is small, and a
curve over many steps shows what one interval would.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from stepcredit.credit.metrics.advantage_statistics import (
    response_means,
    value_length_correlation,
)
from stepcredit.credit.metrics.group_averages import Flags, average_gap, average_of_groups
from stepcredit.credit.metrics.response_patterns import pattern_flags
from stepcredit.credit.metrics.signal_statistics import response_scores, right_and_wrong
from stepcredit.credit.metrics.step_kinds import StepKinds
from stepcredit.data.advantages import Advantages
from stepcredit.data.rollouts import Rollouts


def pay_of_steps(values: Float64[Tensor, " step"], kinds: StepKinds) -> dict[str, float | None]:
    """The mean advantage of each kind of steps, in which each group counts once.

        pay/KIND_steps       mean over groups of the mean of A at the last token of such steps
        pay_gap/KIND_steps   mean over groups of (that mean - the mean of the steps it is compared
                             with), for the kinds that add nothing: filler and repeated

    Args:
        values: the advantage at the last token of each step of a batch (`read_at_steps`).
        kinds: its steps.

    Returns:
        {name: value}, in units of an advantage; None where a kind has no step.

    Example:
        >>> import stepcredit as sc
        >>> from stepcredit.credit.metrics.advantage_statistics import read_at_steps
        >>> r = sc.Rollouts([0, 0], process=sc.Steps([[0, 1], [0]], [[1.0, 0.0], [0.5]]))
        >>> kinds = StepKinds.of(r, [["3=3", "..."], ["4=4"]])
        >>> advantages = sc.PASS(k=0.0, operator="center")(r)
        >>> paid = pay_of_steps(read_at_steps(advantages, kinds.ends), kinds)
        >>> round(paid["pay/filler_steps"], 3), round(paid["pay_gap/filler_steps"], 3)
        (-0.5, -0.5)
    """
    credit = values.cpu().numpy()
    found = {
        f"pay/{kind}_steps": average_of_groups(credit, flags, kinds.group)
        for kind, flags in kinds.flags.items()
    }
    gaps = {
        f"pay_gap/{kind}_steps": average_gap(credit, kinds.flags[kind], others, kinds.group)
        for kind, others in kinds.compared.items()
    }
    return found | gaps


def pay_of_responses(
    advantages: Advantages,
    rollouts: Rollouts,
    *,
    texts: Sequence[str] | None = None,
    truncated: Flags | None = None,
    right_above: float = 0.0,
) -> dict[str, float | None]:
    """The mean advantage of right and wrong responses, and of known bad patterns.

        pay/KIND_responses   mean over groups of the mean of such responses' mean advantages

    Args:
        advantages: of the rollouts.
        rollouts: the batch.
        texts: the responses; None: unknown, and the patterns of texts are left out.
        truncated: which responses were cut off at the length limit; None: unknown.
        right_above: a response is right where its outcome is above this.

    Returns:
        {name: value}, in units of an advantage; None where no response is of the kind.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], lengths=[2, 1], outcome=[1.0, 0.0])
        >>> paid = pay_of_responses(sc.RLOO()(r), r, texts=["5", "..."])
        >>> paid["pay/right_responses"], paid["pay/contentless_responses"]
        (1.0, -1.0)
    """
    pay, group = response_means(advantages).cpu().numpy(), rollouts.group_index.cpu().numpy()
    right, wrong = (flags.cpu().numpy() for flags in right_and_wrong(rollouts, right_above))
    kinds = {"right": right, "wrong": wrong}
    kinds |= pattern_flags(rollouts, texts, truncated, right_above)
    return {
        f"pay/{kind.replace(' ', '_')}_responses": average_of_groups(pay, flags, group)
        for kind, flags in kinds.items()
    }


def length_correlations(rollouts: Rollouts) -> dict[str, float | None]:
    """Correlation with length, within groups, of the outcome and of each stream's mean score.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], lengths=[5, 2], outcome=[1.0, 0.0])
        >>> round(length_correlations(r)["length_correlation/outcome"], 6)
        1.0
    """
    found = {"outcome": value_length_correlation(rollouts.outcome, rollouts.has_outcome, rollouts)}
    device = rollouts.device
    for name, (scores, known) in response_scores(rollouts).items():
        values = torch.as_tensor(scores, device=device), torch.as_tensor(known, device=device)
        found[name] = value_length_correlation(*values, rollouts)
    return {f"length_correlation/{name}": value for name, (value, _) in found.items()}
