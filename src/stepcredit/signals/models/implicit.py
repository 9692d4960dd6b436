"""The implicit process reward of a language model that was trained on outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepcredit.settings.fields import number
from stepcredit.signals.models.ratios import LogRatio, side
from stepcredit.signals.signal_registry import register_signal


@register_signal("implicit")
@dataclass(frozen=True, kw_only=True)
class ImplicitPRM(LogRatio):
    """How much likelier a model trained on outcomes finds each token than its reference does.

        score_t = beta (log p_prm(y_t) - log p_ref(y_t))

    Args:
        prm, ref: where the log-probs come from (see `LogRatio`); None: the rows.
        beta: scale of the log-ratio, that of the training of `prm`.
        tokenizer: the policy's; needed if a model is local.
        temperature: of both.
        clamp: each token's score within [-clamp, clamp].
        per: "tokens", or "steps": the sum over each step's tokens.
        max_tokens_per_batch, device, dtype: of local models.

    Raises:
        RolloutError: a row without the ids, or log-probs, that are needed.
        SettingError: two temperatures, or no tokenizer to check the vocabularies against.
        SignalError: a model of another vocabulary, named with the first token that differs; or
            one that fails.

    Example:
        >>> from stepcredit.signals.responses import Response
        >>> facts = {"prm_logprobs": [-1.0], "ref_logprobs": [-3.0]}
        >>> ImplicitPRM(beta=0.5).scores([Response("?", "a", ((0, 1),), facts=facts)])
        [[1.0]]

    Source: implicit PRM (2412.01981), PRIME (2502.01456). Differs: nothing.
    """

    prm: Any = side("the model trained on outcomes")
    ref: Any = side("the model it was before")
    beta: float = number(0.05, "scale of the log-ratio")

    sides = ("prm", "ref")

    @property
    def identity(self) -> dict[str, Any]:
        """Each side's identity and the settings of the score."""
        return {**super().identity, "beta": self.beta}

    def combine(self, *logprobs: float) -> float:
        """beta (prm - ref)."""
        prm, ref = logprobs
        return self.beta * (prm - ref)
