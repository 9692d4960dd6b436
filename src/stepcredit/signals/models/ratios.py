"""`LogRatio`: what the signals share that subtract one model's log-probs from another's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import fsum
from typing import Any, ClassVar

from stepcredit.errors import SettingError
from stepcredit.settings.fields import check_fields, choice, declare, number, text, whole
from stepcredit.signals.cache import Cached
from stepcredit.signals.facts import numbers_fact
from stepcredit.signals.models.checkpoints import DTYPES
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.models.vocabulary import Vocabulary, check_vocabulary
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Scored, Signal

WINDOW = 256


def side(about: str) -> Any:
    """A field that names where one model's log-probs come from; null: from the rows."""
    return declare(None, _is_side, about)


def _is_side(value: Any) -> str | None:
    if isinstance(value, Signal) and value.grain != "tokens":
        return "a signal of log-probs, one a token"
    return None


def _served(name: str, settings: Mapping[str, Any]) -> Signal:
    """The served model that a side's settings name; built at once, so that they are checked."""
    from stepcredit.signals.served.teacher import ServedLogProbs

    try:
        return ServedLogProbs(**settings)
    except TypeError as error:
        raise SettingError(str(error), field=name) from None
    except SettingError as error:
        raise SettingError(error.reason, field=f"{name}.{error.field}") from None


def _asked(source: Signal | None) -> Signal | None:
    """The signal itself, where its scores are kept."""
    return _asked(source.signal) if isinstance(source, Cached) else source


@dataclass(frozen=True, kw_only=True)
class LogRatio(Signal):
    """Token scores made of several models' log-probs of the tokens the policy wrote.

    Each model is one of: None, its log-probs stand in the rows already (the student's in
    `student_logprobs`); a folder, name or loaded causal language model (`LocalLogProbs`); the
    settings of a `ServedLogProbs` as a mapping; or any signal of log-probs, one a token.

    Local models must have the policy's vocabulary, which is the student's where that is one, and
    else that of `tokenizer`. Any other signal answers for its own, as `ServedLogProbs` does.

    Args:
        tokenizer: the policy's, a folder or loaded.
        temperature: of every model; log-probs in the rows are taken as they are.
        clamp: each token's score within [-clamp, clamp]; log-ratios are unbounded, rare ones huge.
        per: "tokens", or "steps": the sum over each step's tokens.
        max_tokens_per_batch, device, dtype: of local models, as in `LocalLogProbs`.
    """

    tokenizer: Any = declare(None, lambda value: None, "the policy's tokenizer")
    temperature: float = number(1.0, "of every model's log-probs", above=0)
    clamp: float | None = number(None, "tokens within [-clamp, clamp]", above=0, optional=True)
    per: str = choice("tokens", ("tokens", "steps"), "what is scored; steps: by their sum")
    max_tokens_per_batch: int = whole(16384, "bound of a forward's tokens", at_least=1)
    device: str = text("auto", "where local models run")
    dtype: str = choice("auto", DTYPES, "precision of local models' weights")

    sides: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in self.sides:
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, _served(name, getattr(self, name)))
        check_fields(self)
        object.__setattr__(self, "grain", self.per)
        given = [value for name in self.sides if isinstance(value := getattr(self, name), Signal)]
        object.__setattr__(self, "cacheable", all(source.cacheable for source in given))

    @abstractmethod
    def combine(self, *logprobs: float) -> float:
        """The score of one token from each side's log-prob of it, before clamping."""

    @cached_property
    def sources(self) -> dict[str, Signal]:
        """The signal of each side whose log-probs are not in the rows.

        Raises:
            SettingError: one at another temperature, or with settings that make no sense.
        """
        found = {name: self._source(name, getattr(self, name)) for name in self.sides}
        for name, source in found.items():
            own = getattr(_asked(source), "temperature", self.temperature)
            if own != self.temperature:
                reason = f"the {name}'s is {own:g}, the signal's {self.temperature:g}"
                raise SettingError(reason, field="temperature")
        return {name: source for name, source in found.items() if source is not None}

    def _source(self, name: str, value: Any) -> Signal | None:
        if value is None or isinstance(value, Signal):
            return value
        return LocalLogProbs(
            value,
            temperature=self.temperature,
            max_tokens_per_batch=self.max_tokens_per_batch,
            device=self.device,
            dtype=self.dtype,
        )

    def _check_vocabularies(self) -> None:
        """Refuse a local model of another vocabulary than the policy's."""
        asked = {name: _asked(source) for name, source in self.sources.items()}
        local = {n: source for n, source in asked.items() if isinstance(source, LocalLogProbs)}
        if not local:
            return
        if self.tokenizer is not None:
            policy = Vocabulary.of(self.tokenizer)
        elif "student" in local:
            policy = local["student"].vocabulary
        else:
            reason = f"the policy's is needed, to check the vocabulary of the {next(iter(local))}"
            raise SettingError(reason, field="tokenizer")
        for source in local.values():
            check_vocabulary(policy, source.vocabulary)

    @property
    def identity(self) -> dict[str, Any]:
        """Each side's identity and the settings of the score."""
        sides = {n: self.sources[n].identity if n in self.sources else None for n in self.sides}
        return {"signal": self.name, **sides, "clamp": self.clamp, "per": self.per}

    def content(self, response: Response) -> Any:
        """The log-probs that stand in the row, and what the others depend on."""
        known = {
            name: numbers_fact(response, f"{name}_logprobs")
            for name in self.sides
            if name not in self.sources
        }
        ends = response.step_ends if self.per == "steps" else None
        return [known, ends, *(source.content(response) for source in self.sources.values())]

    def stream(self, responses: Sequence[Response]) -> Iterator[Scored]:
        """A window of responses at a time, each model over all of it in turn."""
        self._check_vocabularies()
        for start in range(0, len(responses), WINDOW):
            window = responses[start : start + WINDOW]
            columns = [self._logprobs(name, window) for name in self.sides]
            for offset, rows in enumerate(zip(*columns, strict=True)):
                scores = [self._score(*token) for token in zip(*rows, strict=True)]
                yield start + offset, self._pooled(window[offset], scores)

    def _logprobs(self, name: str, responses: Sequence[Response]) -> list[list[float]]:
        source = self.sources.get(name)
        if source is not None:
            return source.scores(responses)
        return [numbers_fact(response, f"{name}_logprobs") for response in responses]

    def _pooled(self, response: Response, scores: list[float]) -> list[float]:
        if self.per == "tokens":
            return scores
        return [
            fsum(scores[last + 1 : end + 1]) for last, end in pairwise((-1, *response.step_ends))
        ]

    def _score(self, *logprobs: float) -> float:
        score = self.combine(*logprobs)
        return score if self.clamp is None else max(-self.clamp, min(self.clamp, score))


def log_ratios(signal: Any) -> Iterator[LogRatio]:
    """The log-ratios that a signal is or is made of, however it is wrapped.

    Example:
        >>> from stepcredit.signals.models.distillation_signals import Distillation
        >>> from stepcredit.signals.combine import Affine
        >>> [ratio.name for ratio in log_ratios(Affine(Distillation(), scale=2.0))]
        ['opd']
    """
    if isinstance(signal, LogRatio):
        yield signal
    elif isinstance(signal, Signal):
        yield from log_ratios(list(vars(signal).values()))
    elif isinstance(signal, Mapping | list | tuple):
        values = signal.values() if isinstance(signal, Mapping) else signal
        for value in values:
            yield from log_ratios(value)


def sides_in_rows(signal: Any) -> set[str]:
    """The models whose log-probs a signal reads from the rows.

    Example:
        >>> from stepcredit.signals.models.distillation_signals import Distillation
        >>> sides_in_rows(Distillation(teacher="models/teacher"))
        {'student'}
    """
    ratios = list(log_ratios(signal))
    return {name for each in ratios for name in each.sides if getattr(each, name) is None}
