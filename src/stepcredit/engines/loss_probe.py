"""The check that a trainer's policy loss trains each token by its own advantage."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stepcredit.errors import EngineError

ADVANTAGES = ((1.0, -2.0, 0.5), (-1.0, 0.25, 3.0))
"""Of the tokens of two example responses."""
LEAST_COSINE = 1 - 1e-4


def check_token_loss(
    loss: Callable[[Tensor, Tensor], Tensor],
    name: str,
    setting: str,
    device: torch.device | str = "cpu",
) -> None:
    """Refuse a loss that does not multiply each token's log-prob by its own advantage.

    The loss is computed once on two example responses. Where the old and the new policy are equal,
    its gradient with respect to the log-probs of a response must be proportional to minus the
    advantages of the response:

        cos(d loss / d logps_i, -advantages_i) > 1 - 1e-4   for each response i

    Args:
        loss: gives the loss, a scalar, from the log-probs of both policies and the advantages, each
            of shape (response, token).
        name: the loss, for errors.
        setting: the setting that chooses it, for errors.
        device: of the log-probs and advantages.

    Raises:
        EngineError: the loss trains otherwise, or raises an error.

    Example:
        >>> def vanilla(logps, advantages):
        ...     return -(advantages * logps).sum()
        >>> check_token_loss(vanilla, "vanilla", "loss_type")
    """
    advantages = torch.tensor(ADVANTAGES, device=device)
    logps = torch.full_like(advantages, -1.0, requires_grad=True)
    try:
        value = loss(logps, advantages)
    except Exception as error:  # the loss is of the trainer or of the user: it may raise anything
        reason = f"{name!r} fails on two example responses: {type(error).__name__}: {error}"
        raise EngineError(reason, field=setting) from error
    (gradient,) = torch.autograd.grad(value, logps)
    cosine = float(torch.nn.functional.cosine_similarity(gradient, -advantages, dim=1).min())
    if not cosine > LEAST_COSINE:
        reason = f"{name!r} does not train each token by its own advantage (cosine {cosine:.3f})"
        raise EngineError(reason, field=setting)
