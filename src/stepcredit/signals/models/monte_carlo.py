"""`MonteCarlo`: the value of a step's prefix, by completing it many times."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, pairwise
from math import isfinite
from typing import Any

from stepcredit.errors import RolloutError, SettingError, SignalError
from stepcredit.settings.fields import choice, declare, number, whole
from stepcredit.signals.models.checkpoints import is_optional_model
from stepcredit.signals.models.completers import (
    Completer,
    FunctionCompleter,
    ModelCompleter,
    Prefix,
)
from stepcredit.signals.models.contexts import content_of, reads_field
from stepcredit.signals.models.local_model import LocalCausalModel
from stepcredit.signals.programs.functions import fingerprint_of_function, function_of, is_function
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores
from stepcredit.signals.signal_registry import register_signal
from stepcredit.signals.unscorable import identity_of_policy, unless_unscorable

WINDOW = 64
SAMPLED = ("temperature", "top_p", "max_new_tokens", "max_tokens_per_batch")
logger = logging.getLogger("stepcredit.signals")


@dataclass(frozen=True)
class Cost:
    """What a Monte-Carlo run samples.

    Args:
        prefixes: number of different prefixes; equal prefixes are completed once.
        completions: number of completions of all prefixes.
        max_tokens: the most tokens that are sampled; None where your own sampler decides.

    Example:
        >>> print(Cost(prefixes=30, completions=240, max_tokens=122_880))
        240 completions of 30 prefixes, at most 122,880 sampled tokens
    """

    prefixes: int
    completions: int
    max_tokens: int | None

    def __str__(self) -> str:
        prefixes = f"{self.prefixes:,} prefix{'es' * (self.prefixes != 1)}"
        text = f"{self.completions:,} completions of {prefixes}"
        if self.max_tokens is None:
            return text
        return f"{text}, at most {self.max_tokens:,} sampled tokens"


def log_cost(cost: Cost) -> None:
    """Write the cost to the log as a warning, which is shown by default."""
    logger.warning("monte-carlo: %s", cost)


def _is_callable(value: Any) -> str | None:
    return None if callable(value) else "a function"


@register_signal("monte-carlo")
@dataclass(frozen=True, kw_only=True)
class MonteCarlo(LocalCausalModel):
    """The value of each step's prefix: the mean reward of completions that start from it.

        V_j = mean over n completions y of reward(steps 1..j followed by y)      (estimate="soft")
        V_j = max over them                                                      (estimate="hard")
        V_K = reward(the response), V_0 that of the empty prefix
        score_j = V_j (score="value"), V_j - V_{j-1} (score="advantage")

    It samples much more than a policy does in training. `cost` says how much, and a run reports it
    before it begins. Equal prefixes, such as the empty one of a group, are completed once.

    Args:
        reward: called with the texts of whole responses and the rows' facts, returns one number per
            text; a function, a reward of `stepcredit.rewards`, or MODULE:NAME of either.
        model: the policy, a folder or name, or a loaded causal language model; or `sampler`.
        sampler: a function (prompt, prefix, n, seed) -> n completions, or its
            MODULE:NAME; it may call a server.
        tokenizer: the model's; None takes the one beside it.
        n: completions per prefix.
        estimate: "soft" or "hard".
        score: "value" (Math-Shepherd's) or "advantage" (VinePPO's).
        temperature, top_p, max_new_tokens: settings of the model's completions.
        seed: the draws depend on it and on the prefix alone.
        workers: prefixes that a sampler completes at once, each in a thread.
        reads: "ids" gives the model the policy's tokens, "text" its own tokens of prompt and text.
        max_tokens_per_batch: the most tokens in a batch, tokens to be sampled included.
        device, dtype, unscorable: as in `LocalLogProbs`.
        tell: a callback that receives the `Cost` before the first completion; by default, the
            log.

    Raises:
        RolloutError: the reward or the model cannot read a row.
        SignalError: the sampler or reward failed, or returned something unexpected.
        SettingError: neither model nor sampler, or both.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> rigged = MonteCarlo(
        ...     sampler=lambda prompt, prefix, n, seed: ["5"] * n if "2+3" in prefix else ["6"] * n,
        ...     reward=lambda texts, facts: [float(text.endswith("5")) for text in texts],
        ...     score="advantage", tell=print,
        ... )
        >>> rigged.scores(Newline()([Response.of_text("?", "Hm.\\n2+3\\n5")]))
        24 completions of 3 prefixes
        [[0.0, 1.0, 0.0]]

    Source: Math-Shepherd (2312.08935) soft and hard estimation; VinePPO (2410.01679). Differs: the
    last prefix is the response itself, graded without sampling.
    """

    reward: Any = declare(None, is_function, "grades whole responses")
    model: Any = declare(None, is_optional_model, "the policy, if it is local")
    sampler: Any = declare(
        None, lambda value: None if value is None else is_function(value), "completes prefixes"
    )
    n: int = whole(8, "completions per prefix", at_least=1)
    estimate: str = choice("soft", ("soft", "hard"), "mean of the completions' rewards, or best")
    score: str = choice("value", ("value", "advantage"), "V_j, or its change by step j")
    temperature: float = number(1.0, "temperature of the completions", above=0)
    top_p: float = number(1.0, "mass of the tokens that may be drawn", above=0, at_most=1)
    max_new_tokens: int = whole(512, "most tokens of a completion", at_least=1)
    seed: int = whole(0, "seed of the draws")
    workers: int = whole(1, "prefixes that a sampler completes at once", at_least=1)
    reads: str = reads_field()
    tell: Callable[[Cost], None] = declare(
        log_cost, _is_callable, "called with the cost before sampling"
    )

    grain = "steps"
    reward_fields = ("reward",)
    notice_field = "tell"

    @property
    def reads_token_ids(self) -> bool:
        """Whether a model reads "ids"; a sampler reads text."""
        return self.model is not None and self.reads == "ids"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.model is None) == (self.sampler is None):
            raise SettingError("expected a model or a sampler, and not both", field="model")
        for name in ("reward", "sampler"):
            object.__setattr__(self, name, function_of(getattr(self, name), name))

    @property
    def identity(self) -> dict[str, Any]:
        """The sampler or model, the reward, and the settings that the draws depend on."""
        names = ["n", "estimate", "score", "seed"]
        sources: dict[str, Any] = {"reward": fingerprint_of_function(self.reward)}
        if self.model is None:
            sources["sampler"] = fingerprint_of_function(self.sampler)
        else:
            names += ["temperature", "top_p", "max_new_tokens", "reads", "dtype"]
            sources["model"] = self.model_fingerprint
            sources["tokenizer"] = self.tokenizer_fingerprint
        sources |= identity_of_policy(self.unscorable)
        return {"signal": self.name, **sources, **{name: getattr(self, name) for name in names}}

    def content(self, response: Response) -> Any:
        """The tokens or texts, and every fact, since a reward may read any of them."""
        read = content_of(response, self.reads if self.model is not None else "text")
        return [read, response.text, repr(sorted(response.facts.items()))]

    def cost(self, responses: Sequence[Response]) -> Cost:
        """What a run over the responses samples.

        Args:
            responses: split into steps.
        """
        return self._cost(chain.from_iterable(map(self._sampled, responses)))

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Score window by window; completions are kept while a later response shares them."""
        read = [
            unless_unscorable(partial(self._sampled, response), self.unscorable)
            for response in responses
        ]
        sampled = [prefixes or [] for prefixes in read]
        uses = Counter(chain.from_iterable(sampled))
        self.tell(self._cost(uses))
        known: dict[Prefix, list[str]] = {}
        for start in range(0, len(responses), WINDOW):
            window = range(start, min(start + WINDOW, len(responses)))
            owners: dict[Prefix, Response] = {}
            for index in window:
                for prefix in sampled[index]:
                    if prefix not in known:
                        owners.setdefault(prefix, responses[index])
            known.update(self._completer.texts(owners))
            for index in window:
                texts = [known[prefix] for prefix in sampled[index]]
                scored = read[index] is not None
                yield index, self._scores(responses[index], texts) if scored else []
            uses.subtract(chain.from_iterable(sampled[index] for index in window))
            known = {prefix: texts for prefix, texts in known.items() if uses[prefix]}

    @cached_property
    def _completer(self) -> Completer:
        if self.sampler is not None:
            return FunctionCompleter(self.sampler, self.n, self.seed, self.workers)
        settings = {name: getattr(self, name) for name in SAMPLED}
        return ModelCompleter(self.causal, self.reads, self.n, self.seed, settings)

    def _sampled(self, response: Response) -> list[Prefix]:
        """The prefixes to complete: not the whole response; the empty one only if needed."""
        prefixes = self._completer.prefixes(response)[:-1]
        return prefixes if self.score == "advantage" else prefixes[1:]

    def _cost(self, prefixes: Iterable[Prefix]) -> Cost:
        number = len(set(prefixes))
        most = None if self.model is None else number * self.n * self.max_new_tokens
        return Cost(number, number * self.n, most)

    def _scores(self, response: Response, texts: Sequence[Sequence[str]]) -> list[float]:
        rewards = self._rewards(response, [*chain.from_iterable(texts), response.text])
        rows = [rewards[start : start + self.n] for start in range(0, len(rewards) - 1, self.n)]
        reduce = max if self.estimate == "hard" else lambda row: sum(row) / len(row)
        values = [*map(reduce, rows), rewards[-1]]
        if self.score == "value":
            return values
        return [after - before for before, after in pairwise(values)]

    def _rewards(self, response: Response, texts: list[str]) -> list[float]:
        """One finite number per text.

        Raises:
            SignalError: the reward failed or gave something else; the error names the response.
        """
        try:
            rewards = list(map(float, self.reward(texts, [response.facts] * len(texts))))
        except RolloutError as error:
            raise error.at(place=response.name) from error.__cause__
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise SignalError(reason, field="reward", place=response.name) from error
        if len(rewards) != len(texts):
            reason = f"{len(rewards)} rewards for {len(texts)} texts"
            raise SignalError(reason, field="reward", place=response.name)
        for reward in rewards:
            if not isfinite(reward):
                raise SignalError(f"gave {reward}", field="reward", place=response.name)
        return rewards
