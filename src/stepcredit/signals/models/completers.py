"""Complete the prefixes of responses, with a local model or with any function."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from stepcredit.errors import SignalError
from stepcredit.signals.models.causal import CausalLM
from stepcredit.signals.models.contexts import trunk_of
from stepcredit.signals.models.keyed_sampling import complete, draw_seed
from stepcredit.signals.responses import Response

Prefix = tuple[Any, Any]
"""A prompt and the kept part of the response, as token ids or as texts."""
Sampler = Callable[[str, str, int, int], list[str]]


class Completer(ABC):
    """Completes prefixes of responses, `n` times each."""

    @abstractmethod
    def prefixes(self, response: Response) -> list[Prefix]:
        """The empty prefix, then the prefix up to each step's end; the last is the whole text."""

    @abstractmethod
    def texts(self, owners: Mapping[Prefix, Response]) -> dict[Prefix, list[str]]:
        """For each prefix, its completions with the prefix in front, i.e. whole responses.

        Args:
            owners: for each prefix, a response from which it comes; errors use its name.
        """


@dataclass(frozen=True)
class ModelCompleter(Completer):
    """Completions by a local model.

    Args:
        causal: the model, with its tokenizer.
        reads: which tokens the model gets (see `trunk_of`).
        n, seed: completions per prefix, and the seed of their draws.
        settings: further arguments of `complete`.
    """

    causal: CausalLM
    reads: str
    n: int
    seed: int
    settings: Mapping[str, Any]

    def prefixes(self, response: Response) -> list[Prefix]:
        """As token ids; checked against the model's context."""
        trunk = trunk_of(response, self.causal.tokenizer, self.reads)
        start, length = trunk.cuts[0], len(trunk.ids) + self.settings["max_new_tokens"]
        self.causal.check(response, trunk.ids, length)
        return [(trunk.ids[:start], trunk.ids[start:cut]) for cut in trunk.cuts]

    def texts(self, owners: Mapping[Prefix, Response]) -> dict[Prefix, list[str]]:
        """Complete the prefixes in batches of similar length, with one seed per row."""
        rows = [(prefix, draw) for prefix in owners for draw in range(self.n)]
        found = complete(
            self.causal,
            [prompt + own for (prompt, own), _ in rows],
            [draw_seed(self.seed, prefix, draw) for prefix, draw in rows],
            **self.settings,
        )
        texts: dict[Prefix, list[str]] = {prefix: [] for prefix in owners}
        for ((prompt, own), _), ids in zip(rows, found, strict=True):
            text = self.causal.tokenizer.decode([*own, *ids], skip_special_tokens=True)
            texts[prompt, own].append(text)
        return texts


@dataclass(frozen=True)
class FunctionCompleter(Completer):
    """Completions by a function, one prefix at a time.

    Args:
        sampler: (prompt, prefix, n, seed) -> n completions.
        n, seed: as in `ModelCompleter`; the prefix also changes the seed.
        workers: prefixes completed at once.
    """

    sampler: Sampler
    n: int
    seed: int
    workers: int

    def prefixes(self, response: Response) -> list[Prefix]:
        """As texts."""
        ends = (0, *(response.steps or ()))
        return [(response.prompt, response.text[:end]) for end in ends]

    def texts(self, owners: Mapping[Prefix, Response]) -> dict[Prefix, list[str]]:
        """Complete the prefixes in `workers` threads; the first failure ends the run."""
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                found = list(pool.map(self._complete_prefix, owners, owners.values()))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return dict(zip(owners, found, strict=True))

    def _complete_prefix(self, key: Prefix, owner: Response) -> list[str]:
        prompt, prefix = key
        try:
            found = self.sampler(prompt, prefix, self.n, draw_seed(self.seed, prompt, prefix))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise SignalError(reason, field="sampler", place=owner.name) from error
        if not _are_texts(found) or len(found) != self.n:
            count = f"{len(found)} completions" if _are_texts(found) else repr(found)
            reason = f"expected {self.n} completions, got {count}"
            raise SignalError(reason, field="sampler", place=owner.name)
        return [prefix + completion for completion in found]


def _are_texts(found: Any) -> bool:
    sequence = isinstance(found, Sequence) and not isinstance(found, str)
    return sequence and all(isinstance(text, str) for text in found)
