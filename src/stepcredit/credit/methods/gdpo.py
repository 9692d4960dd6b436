"""GDPO: each scalar reward standardized alone, then the sum normalized over the batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.fused import weighted_reads
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.batch_norm import WHITENING, BatchNorm
from stepcredit.credit.stages.fusion import SCALARS, Weights, canonical_weights, standardize_scalars
from stepcredit.credit.stages.groups import Group
from stepcredit.data.rollouts import Rollouts
from stepcredit.errors import MethodError
from stepcredit.settings.fields import choice, composed, number


def _scalar_weights(weights: Weights) -> dict[str, float]:
    named = canonical_weights(weights)
    for name in named:
        if name not in SCALARS:
            raise MethodError(f"gdpo takes outcome and format alone, not {name!r}", field="weights")
    return named


_TRAINERS_EPS = {"response": 1e-4, "token": 1e-6}


@register("gdpo")
@dataclass(frozen=True)
class GDPO(Estimator):
    """Each scalar reward standardized on its own, summed, then normalized over the batch.

        a = sum over n of w_n (r_n - mean) / (std + eps)
        response  A = (a - mean) / (std + 1e-4) over the batch's responses
        token     A = (a - mean) / sqrt(variance + 1e-8) over the batch's tokens

    Args:
        weights: {"outcome": weight, "format": weight}; a process stream is refused.
        batch_norm: "response" (TRL's) or "token" (verl's).
        eps: added to each group's std; None: what the trainer of that `batch_norm` adds, 1e-4 with
            "response" and 1e-6 with "token".
        clip: the last step: A is limited to [-clip, clip].

    Returns:
        Unknown rewards add 0. A batch of one response, or of equal ones, gives 0.

    Raises:
        MethodError: a weight for a process stream.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts([0, 0], lengths=[1, 1], outcome=[1.0, 0.0])
        >>> [round(x, 3) for x in sc.GDPO()(r).packed().tolist()]
        [0.707, -0.707]

    Source: GDPO (2601.05242).
    """

    weights: Weights = composed(
        {"outcome": 1.0, "format": 1.0}, _scalar_weights, "{'outcome': number, 'format': number}"
    )
    batch_norm: str = choice("response", ("response", "token"), "what the batch-wide step counts")
    eps: float | None = number(
        None, "added to a group's std; null: 1e-4, or 1e-6 with token", at_least=0, optional=True
    )

    paper = "2601.05242"
    equation = "A = batchnorm(sum_n w_n (r_n - mean) / (std + eps))"

    @property
    def reads(self) -> Reads:
        """The outcome and the format, those of them that have a weight."""
        return replace(weighted_reads(_scalar_weights(self.weights)), process=None, weights=None)

    @property
    def batch_step(self) -> BatchNorm:
        """The batch normalization: always."""
        return WHITENING if self.batch_norm == "token" else BatchNorm("response", 1e-4)

    def credit(self, rollouts: Rollouts) -> Credit:
        """The weighted sum of standardized rewards."""
        group = Group.of(rollouts)
        both = {"outcome": rollouts.outcomes, "format": rollouts.formats}
        eps = _TRAINERS_EPS[self.batch_norm] if self.eps is None else self.eps
        rules = dict.fromkeys(both, "masked_norm")
        every = standardize_scalars(both, group, rules, ddof=1, eps=eps)
        normed = {name: z.values for name, z in every.items()}
        weights = _scalar_weights(self.weights)
        total = sum(
            (w * normed[n] for n, w in weights.items()), torch.zeros_like(normed["outcome"])
        )
        return Credit.flat(
            rollouts, total, **{f"N({n})": v for n, v in normed.items()}, total=total
        )
