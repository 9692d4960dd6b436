"""Signals that subtract one model's log-probs from another's: `opd`, `g-opd`, `implicit`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import fsum
from typing import Any, ClassVar

from stepcredit.errors import SettingError
from stepcredit.settings.fields import choice, declare, number
from stepcredit.signals.cache import Cached
from stepcredit.signals.facts import numbers_fact
from stepcredit.signals.models.checkpoints import is_optional_model, is_tokenizer
from stepcredit.signals.models.local_model import RunsModels
from stepcredit.signals.models.teacher_forcing import LocalLogProbs
from stepcredit.signals.models.vocabulary import Vocabulary, check_vocabulary
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Grain, IndexedScores, Signal, signals_in
from stepcredit.signals.signal_registry import register_signal

WINDOW = 256


def model_field(about: str) -> Any:
    """A field that says where one model's log-probs come from; None: from the rows."""
    return declare(None, _gives_logprobs, about)


def _gives_logprobs(value: Any) -> str | None:
    if not isinstance(value, Signal):
        return is_optional_model(value)
    return None if value.grain == "tokens" else "a signal of log-probs, one per token"


def _served(name: str, settings: Mapping[str, Any]) -> Signal:
    """The served model with these settings; it is built at once, so that they are checked."""
    from stepcredit.signals.served.teacher import ServedLogProbs

    try:
        return ServedLogProbs(**settings)
    except TypeError as error:
        raise SettingError(str(error), field=name) from None
    except SettingError as error:
        raise error.at(under=name) from error.__cause__


def _uncached(source: Signal | None) -> Signal | None:
    """The signal itself, if its scores are cached."""
    return _uncached(source.signal) if isinstance(source, Cached) else source


@dataclass(frozen=True, kw_only=True)
class LogRatio(RunsModels):
    """Token scores made of several models' log-probs of the tokens that the policy wrote.

    A subclass has one field per model (see `model_field`), lists their names in `models`, and
    defines `combine`. Each such field holds one of:

        None                 the log-probs are in the rows (the student's in `student_logprobs`)
        a local model        a folder, a name or a loaded causal language model (`LocalLogProbs`)
        a mapping            the settings of a `ServedLogProbs`
        a signal             any that gives log-probs, one per token

    A local model must have the policy's vocabulary. The policy's is that of the student, if the
    student is local, and else that of `tokenizer`. Other signals check the vocabulary themselves,
    as `ServedLogProbs` does.

    Args:
        tokenizer: the policy's, a folder or loaded.
        temperature: of every model; log-probs in the rows are used unchanged.
        clamp: keeps each token's score within [-clamp, clamp]; log-ratios have no bound.
        per: "tokens", or "steps": the sum over each step's tokens.
        max_tokens_per_batch, device, dtype, unscorable: of local models, as in `RunsModels`.
    """

    tokenizer: Any = declare(None, is_tokenizer, "the policy's tokenizer", kw_only=True)
    temperature: float = number(1.0, "of every model's log-probs", above=0)
    clamp: float | None = number(None, "tokens within [-clamp, clamp]", above=0, optional=True)
    per: Grain = choice("tokens", ("tokens", "steps"), "what is scored; steps: by their sum")

    reads_token_ids = True
    models: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that hold the models, in the order in which `combine` takes them."""

    def __post_init__(self) -> None:
        for name in self.models:
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, _served(name, getattr(self, name)))
        super().__post_init__()

    @property
    def grain(self) -> Grain:
        """The value of `per`."""
        return self.per

    @abstractmethod
    def combine(self, *logprobs: float) -> float:
        """The score of one token, from each model's log-prob of it, before clamping."""

    def model_of(self, name: str) -> Any:
        """Where one model's log-probs come from: the value of its field; None: the rows."""
        return getattr(self, name)

    @cached_property
    def sources(self) -> dict[str, Signal]:
        """The signal of each model whose log-probs are not in the rows.

        Raises:
            SettingError: a model has another temperature, or a setting is out of range.
        """
        values = {name: self.model_of(name) for name in self.models}
        of_value = {id(value): self._source(value) for value in values.values()}
        found = {name: of_value[id(value)] for name, value in values.items()}
        for name, source in found.items():
            own = getattr(_uncached(source), "temperature", self.temperature)
            if own != self.temperature:
                reason = f"the {name}'s is {own:g}, the signal's {self.temperature:g}"
                raise SettingError(reason, field="temperature")
        return {name: source for name, source in found.items() if source is not None}

    def _source(self, value: Any) -> Signal | None:
        if value is None or isinstance(value, Signal):
            return value
        return LocalLogProbs(
            value,
            temperature=self.temperature,
            max_tokens_per_batch=self.max_tokens_per_batch,
            device=self.device,
            dtype=self.dtype,
            unscorable=self.unscorable,
        )

    def _check_vocabularies(self) -> None:
        """Refuse a local model whose vocabulary is not the policy's."""
        uncached = {name: _uncached(source) for name, source in self.sources.items()}
        local = {n: source for n, source in uncached.items() if isinstance(source, LocalLogProbs)}
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
        """Each model's identity and the settings of the score."""
        models = {n: self.sources[n].identity if n in self.sources else None for n in self.models}
        return {"signal": self.name, **models, "clamp": self.clamp, "per": self.per}

    def content(self, response: Response) -> Any:
        """The log-probs in the row, and what the other models' log-probs depend on."""
        known = {
            name: numbers_fact(response, f"{name}_logprobs")
            for name in self.models
            if name not in self.sources
        }
        ends = response.step_ends if self.per == "steps" else None
        return [known, ends, *(source.content(response) for source in self.sources.values())]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """One window of responses after the other; in each, one model after the other."""
        return self._ratios(dict.fromkeys(self.models, responses))

    def _ratios(self, read: Mapping[str, Sequence[Response]]) -> Iterator[IndexedScores]:
        """The scores of the same responses as each model reads them, by the model's name."""
        self._check_vocabularies()
        rows = [read[name] for name in self.models]
        for start in range(0, len(rows[0]), WINDOW):
            windows = [each[start : start + WINDOW] for each in rows]
            columns = list(map(self._logprobs, self.models, windows))
            for offset, logprobs in enumerate(zip(*columns, strict=True)):
                if not all(logprobs):
                    yield start + offset, []
                    continue
                scores = [self._score(*token) for token in zip(*logprobs, strict=True)]
                yield start + offset, self._pooled(windows[0][offset], scores)

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


def log_ratios(given: Any) -> Iterator[LogRatio]:
    """The log-ratios among signals and the signals that they are made of.

    Args:
        given: a signal, or a mapping or list of signals; anything else has none.

    Example:
        >>> from stepcredit.signals.combine import Affine
        >>> [ratio.name for ratio in log_ratios(Affine(Distillation(), scale=2.0))]
        ['opd']
    """
    for signal in signals_in(given):
        yield from (part for part in signal.walk() if isinstance(part, LogRatio))


def models_from_rows(given: Any) -> set[str]:
    """The models whose log-probs signals read from the rows.

    Args:
        given: as in `log_ratios`.

    Example:
        >>> models_from_rows(Distillation(teacher="models/teacher"))
        {'student'}
    """
    ratios = list(log_ratios(given))
    return {name for each in ratios for name in each.models if each.model_of(name) is None}


@register_signal("opd")
@dataclass(frozen=True, kw_only=True)
class Distillation(LogRatio):
    """On-policy distillation: the negative log-ratio at the sampled token (k1), without gradient.

        score_t = -(log p_student(y_t) - log p_teacher(y_t))

    Its sum over a step is the step's share of -KL(student || teacher). The other estimators of a
    KL, k2 and k3, cannot serve as a signal: they lose or distort the sign.

    Args:
        teacher, student: where the log-probs come from (see `LogRatio`); None: the rows.
        tokenizer: the policy's; needed if a model is local and the student is not.
        temperature: of both models; a server always uses 1.
        clamp: each token's score within [-clamp, clamp].
        per: "tokens", or "steps": the sum over each step's tokens.
        max_tokens_per_batch, device, dtype, unscorable: of local models.

    Raises:
        RolloutError: a row without the ids, or log-probs, that are needed.
        SettingError: two temperatures, or no tokenizer to check a teacher's vocabulary against.
        SignalError: a teacher of another vocabulary, named with the first token that differs; or
            a model that fails.

    Example:
        >>> from stepcredit.signals.responses import Response
        >>> facts = {"student_logprobs": [-1.0, -0.5], "teacher_logprobs": [-0.5, -4.5]}
        >>> response = Response("?", "ab", ((0, 1), (1, 2)), facts=facts)
        >>> Distillation(clamp=3.0).scores([response])
        [[0.5, -3.0]]

    Source: OPD (2306.13649), as PASS (2606.29296) uses it.
    """

    teacher: Any = model_field("the teacher")
    student: Any = model_field("the student, which wrote the responses")

    models = ("student", "teacher")

    def combine(self, *logprobs: float) -> float:
        """-(student - teacher)."""
        student, teacher = logprobs
        return -(student - teacher)


@register_signal("g-opd")
@dataclass(frozen=True, kw_only=True)
class GeneralizedDistillation(LogRatio):
    """Generalized on-policy distillation: the teacher is followed further, beyond a base model.

        score_t = -[(log p_student - log p_base) - lam (log p_teacher - log p_base)]

    Args:
        teacher, student, base: where the log-probs come from (see `LogRatio`); None: the rows.
            The base is the student as it was before training.
        lam: lambda; 1 is `Distillation` for any base, above 1 goes beyond the teacher.
        tokenizer: the policy's; needed if a model is local and the student is not.
        temperature: of all three models; a server always uses 1.
        clamp: each token's score within [-clamp, clamp].
        per: "tokens", or "steps": the sum over each step's tokens.
        max_tokens_per_batch, device, dtype, unscorable: of local models.

    Raises:
        RolloutError, SettingError, SignalError: as `Distillation`.

    Example:
        >>> from stepcredit.signals.responses import Response
        >>> facts = {"student_logprobs": [-1.0], "teacher_logprobs": [-0.5],
        ...          "base_logprobs": [-2.0]}
        >>> response = Response("?", "a", ((0, 1),), facts=facts)
        >>> GeneralizedDistillation(lam=1.25).scores([response])
        [[0.875]]

    Source: G-OPD (2602.12125).
    """

    teacher: Any = model_field("the teacher")
    student: Any = model_field("the student, which wrote the responses")
    base: Any = model_field("the student before training")
    lam: float = number(1.25, "how far beyond the base the teacher is followed")

    models = ("student", "teacher", "base")

    @property
    def identity(self) -> dict[str, Any]:
        """Each model's identity and the settings of the score."""
        return {**super().identity, "lam": self.lam}

    def combine(self, *logprobs: float) -> float:
        """-[(student - base) - lam (teacher - base)]."""
        student, teacher, base = logprobs
        return -((student - base) - self.lam * (teacher - base))


@register_signal("implicit")
@dataclass(frozen=True, kw_only=True)
class ImplicitPRM(LogRatio):
    """How much more likely a token is under a model trained on outcomes than under its reference.

        score_t = beta (log p_prm(y_t) - log p_ref(y_t))

    Args:
        prm, ref: where the log-probs come from (see `LogRatio`); None: the rows.
        beta: scale of the log-ratio, that of the training of `prm`.
        tokenizer: the policy's; needed if a model is local.
        temperature: of both.
        clamp: each token's score within [-clamp, clamp].
        per: "tokens", or "steps": the sum over each step's tokens.
        max_tokens_per_batch, device, dtype, unscorable: of local models.

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

    Source: implicit PRM (2412.01981), PRIME (2502.01456).
    """

    prm: Any = model_field("the model trained on outcomes")
    ref: Any = model_field("the model it was before")
    beta: float = number(0.05, "scale of the log-ratio")

    models = ("prm", "ref")

    @property
    def identity(self) -> dict[str, Any]:
        """Each model's identity and the settings of the score."""
        return {**super().identity, "beta": self.beta}

    def combine(self, *logprobs: float) -> float:
        """beta (prm - ref)."""
        prm, ref = logprobs
        return self.beta * (prm - ref)
