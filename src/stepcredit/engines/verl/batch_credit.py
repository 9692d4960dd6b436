"""From a batch of verl's queue to one advantage a token: pure, without Ray or a queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import stepcredit as sc
from stepcredit.credit.metrics.panel import training_metrics
from stepcredit.credit.metrics.signal_statistics import segmentation
from stepcredit.credit.stages.fusion import canonical_weights
from stepcredit.data.inputs import told_length
from stepcredit.data.masking import (
    row_tokens_to_trained,
    stream_to_trained,
    tokens_to_response,
)
from stepcredit.data.streams import Stream
from stepcredit.engines.texts import (
    chunks_are_steps,
    chunks_read_text,
    decoded,
    trained_texts,
)
from stepcredit.engines.verl.batch import QueuedBatch, placed
from stepcredit.engines.verl.config_keys import ENGINE, PLACE, VerlSettings, logprobs_read
from stepcredit.errors import EngineError, MethodError, RolloutError
from stepcredit.signals.responses import Response

Told = Mapping[str, Any]


@dataclass(frozen=True)
class Credit:
    """A batch's credit; everything is computed when it is first asked for.

    Args:
        batch: rows of the queue.
        settings: the credit's.
        tokenizer: the policy's, a fast one; for signals, chunks and metrics that read text.
        engine: verl's own advantages of each row, all tokens: the stream "engine", which stands in
            the outcome's place. None: the outcome itself.
    """

    batch: QueuedBatch
    settings: VerlSettings
    tokenizer: Any = None
    engine: Sequence[Tensor] | None = None

    @cached_property
    def estimator(self) -> sc.Estimator:
        """The method; where there is an engine's advantage, with the outcome's weight on it."""
        own = self.settings.estimator
        return own if self.engine is None else with_engine(own)

    @cached_property
    def rollouts(self) -> sc.Rollouts:
        """The members as the core's input: ends and scores over trained tokens.

        Raises:
            RolloutError: a row that breaks a rule, by its key.
            EngineError: scores that were asked for and are not there.
        """
        batch, formats = self.batch, [_number(extra.get("format")) for extra in self.batch.extras]
        with self._placed():
            return sc.Rollouts(
                group=[str(uid) for uid in batch.of_members("uid")],
                lengths=batch.trained.sum(1),
                process=self._streams(),
                outcome=batch.outcomes,
                format=formats,
                format_ok=[
                    self._kept(extra, format_)
                    for extra, format_ in zip(batch.extras, formats, strict=True)
                ],
                logprobs=self._logprobs(),
                step_ends=self._step_ends(),
                tokens=self._token_texts(),
            )

    @cached_property
    def advantages(self) -> sc.Advantages:
        """One advantage a trained token of each member."""
        with self._placed():
            return self.estimator(self.rollouts)

    def rows(self) -> list[Tensor]:
        """Advantages of every row of the batch, all its tokens: 0 off the trained ones.

        Returns:
            float32, in the batch's order; rows that are no members hold zeros.
        """
        masks = self.batch.columns["response_mask"]
        found = [torch.zeros(len(mask)) for mask in masks]
        for row, values in zip(self.batch.members, self.advantages.ragged(), strict=True):
            found[row] = tokens_to_response(values, masks[row].bool())
        return found

    def figures(self, longest: int | None = None) -> dict[str, float]:
        """What is logged of the batch, by verl's names.

        Args:
            longest: verl's limit of a response; one as long that does not end was cut off.
        """
        ends = segmentation(self.rollouts)
        ids = [ids.tolist() for ids in self.batch.of_members("responses")]
        own = [
            row_tokens_to_trained(row, mask)
            for row, mask in zip(ids, self.batch.trained.tolist(), strict=True)
        ]
        texts, said = decoded(self.tokenizer, own, ends)
        last = self.tokenizer.eos_token_id
        cut = [len(row) >= longest and row[-1] != last for row in ids] if longest else None
        found = training_metrics(
            self.rollouts,
            self.estimator,
            advantages=self.advantages,
            steps=said,
            texts=texts,
            truncated=cut,
        )
        return {f"stepcredit/{name}": value for name, value in found.items()}

    @cached_property
    def _responses(self) -> list[Response]:
        """The members as signals read them, with the log-probs that these need."""
        signals = self.settings.scored_in_trainer.values()
        models = sorted(set[str]().union(*map(logprobs_read, signals)))
        return self.batch.responses(self.tokenizer, self.settings.splitter, models)

    def _streams(self) -> dict[str, Stream]:
        found = told_streams(self.batch)
        for name in self.settings.scored_with_rewards:
            if name not in found:
                reason = "no response has its scores: does another reward manager run?"
                raise EngineError(reason, field=f"{PLACE}.process_signal ({name})")
        for name, signal in self.settings.scored_in_trainer.items():
            if name in found:
                reason = "the reward function gives a stream of this name too"
                raise EngineError(reason, field=f"{PLACE}.process_signal ({name})")
            found[name] = to_trained(signal(self._responses), name, self.batch)
        if self.engine is not None:
            check_outcomes(self.batch)
            own = sc.TokenAdvantages([self.engine[row].double() for row in self.batch.members])
            found[ENGINE] = to_trained(own, ENGINE, self.batch)
        return found

    def _logprobs(self) -> dict[str, list[Tensor]]:
        """Of the models that the method is made of, over trained tokens."""
        masks = [mask.bool() for mask in self.batch.of_members("response_mask")]
        return {
            model: [row[own] for row, own in zip(self.batch.logprobs(model), masks, strict=True)]
            for model in getattr(self.estimator, "models", ())
        }

    def _step_ends(self) -> Stream | None:
        """Where steps end, for chunks that are the steps of a signal of tokens."""
        if not chunks_are_steps(self.estimator):
            return None
        ends = [response.step_ends for response in self._responses]
        zeros = sc.Steps(ends, [[0.0] * len(row) for row in ends])
        cut = to_trained(zeros, "step_ends", self.batch)
        return Stream._of(values=cut.ends, counts=cut.counts)

    def _token_texts(self) -> list[list[str]] | None:
        """The trained tokens' texts, for chunks that are cut by text."""
        if not chunks_read_text(self.estimator):
            return None
        return trained_texts(self._responses, self.batch.trained.tolist())

    def _kept(self, extra: Told, format_: float | None) -> bool:
        told = extra.get("format_ok")
        return self.settings.keeps_format(format_) if told is None else bool(told)

    @contextmanager
    def _placed(self) -> Iterator[None]:
        """Errors about a row name its key."""
        try:
            yield
        except RolloutError as error:
            raise placed(error, self.batch) from error


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def check_outcomes(batch: QueuedBatch) -> None:
    """Refuse an unknown outcome where verl's own advantage stands in the outcome's place.

    Raises:
        EngineError: names the first response without one.
    """
    if None in batch.outcomes:
        name = batch.name_of(batch.outcomes.index(None))
        reason = f"verl's own advantage counts the unknown outcome of {name} as 0; use grpo"
        raise EngineError(reason, field="algorithm.adv_estimator")


def with_engine(estimator: sc.Estimator) -> sc.Estimator:
    """The method whose outcome is the engine's own advantage: the stream "engine" has its weight.

    Raises:
        EngineError: the method weighs no streams, or both the outcome and the engine's advantage.

    Example:
        >>> with_engine(sc.PASS(weights=(1.0, 0.5, 0.0))).weights
        {'process': 1.0, 'engine': 0.5, 'format': 0.0}
    """
    given: Any = getattr(estimator, "weights", None)
    if given is None:
        raise _no_engine(estimator, "it weighs no streams")
    weights = canonical_weights(given)
    if ENGINE in weights and weights.get("outcome"):
        reason = "counts the outcome twice: verl's own advantage holds it"
        raise EngineError(reason, field=f"{PLACE}.fields.weights")
    moved = weights if ENGINE in weights else {_moved(name): weights[name] for name in weights}
    changes: dict[str, Any] = {"weights": moved}
    operator = getattr(estimator, "operator", None)
    if isinstance(operator, Mapping):
        changes["operator"] = {name: rule for name, rule in operator.items() if name in moved}
    try:
        return replace(estimator, **changes)
    except MethodError as error:
        raise _no_engine(estimator, error.reason) from error


def _no_engine(estimator: sc.Estimator, reason: str) -> EngineError:
    line = f"{estimator.name!r} can't take verl's own advantage ({reason}); use grpo"
    return EngineError(line, field="algorithm.adv_estimator")


def _moved(name: str) -> str:
    return ENGINE if name == "outcome" else name


def told_streams(batch: QueuedBatch) -> dict[str, Stream]:
    """The process streams among what the reward loop told, over trained tokens.

    A row tells of them by the rollout format's names: `step_ends` and `step_scores`, or
    `token_scores`, are the stream "process"; `signals` holds others, {name: {`ends`, `scores`}}. A
    row without a stream has None for it, no such key, or empty lists.

    Raises:
        RolloutError: a row that breaks a rule, by its number among the members.
    """
    rows = [_told(extra, row) for row, extra in enumerate(batch.extras)]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _stream(name, [row.get(name, {}) for row in rows], batch) for name in names}


def _told(extra: Told, row: int) -> dict[str, Told]:
    """Streams that a row has scores of."""
    found = _checked_signals(extra, row)
    own = [name for name in ("step_scores", "token_scores") if _listed(extra.get(name))]
    if len(own) > 1 or (own and _listed(found.get("process", {}).get("scores"))):
        raise RolloutError("the stream 'process' is given twice", row=row, field=own[0])
    if own:
        ends = extra.get("step_ends") if own == ["step_scores"] else None
        found["process"] = {"ends": ends, "scores": extra[own[0]]}
    return {name: given for name, given in found.items() if given and _values(given)}


def _checked_signals(extra: Told, row: int) -> dict[str, Told]:
    """Its named streams; refuses what is told of any stream in another form than lists."""
    named = _fields(extra.get("signals"), "signals", row)
    found: dict[str, Told] = {
        name: _fields(given, f"signals.{name}", row) for name, given in named.items()
    }
    told = {name: extra.get(name) for name in ("step_ends", "step_scores", "token_scores")}
    for name, given in found.items():
        told |= {f"signals.{name}.{key}": value for key, value in given.items()}
    for name, values in told.items():
        if not isinstance(values, Iterable | None) or getattr(values, "ndim", 1) != 1:
            raise RolloutError(f"expected a list, got {values!r}", row=row, field=name)
    return found


def _fields(given: Any, name: str, row: int) -> dict[str, Any]:
    if not isinstance(given, Mapping | None):
        raise RolloutError(f"expected names with their values, got {given!r}", row=row, field=name)
    return dict(given or {})


def _stream(name: str, rows: Sequence[Told], batch: QueuedBatch) -> Stream:
    kinds = [_kind(given) if given else None for given in rows]
    kind = next(kind for kind in kinds if kind is not None)
    for row, other in enumerate(kinds):
        if other not in (None, kind):
            raise RolloutError(f"holds {other}, other responses {kind}", row=row, field=name)
    values = [_values(given) for given in rows]
    if kind == "scores of steps":
        ends = [_listed(given.get("ends")) for given in rows]
        return to_trained(sc.Steps(ends, values), name, batch)
    made = sc.TokenAdvantages if kind == "advantages" else sc.Tokens
    return to_trained(made(values), name, batch)


def _kind(given: Told) -> str:
    if "advantages" in given:
        return "advantages"
    return "scores of tokens" if given.get("ends") is None else "scores of steps"


def _values(given: Told) -> list[Any]:
    return _listed(given.get("advantages", given.get("scores")))


def _listed(values: Any) -> list[Any]:
    if values is None:
        return []
    return values.tolist() if hasattr(values, "tolist") else list(values)


def to_trained(stream: Any, name: str, batch: QueuedBatch) -> Any:
    """A stream that counts all tokens of the responses, over trained tokens.

    Raises:
        RolloutError: it is of other lengths than the responses.
    """
    told, sizes = told_length(stream).cpu(), torch.tensor(batch.sizes)
    wrong = ((told != sizes) & (told != 0)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        had, want = int(told[row]), int(sizes[row])
        reason = f"{had} values, but {want} tokens"
        if isinstance(stream, sc.Steps):
            reason = f"last step ends at {had - 1}, but the response's last token is {want - 1}"
        raise RolloutError(reason, row=row, field=name)
    if bool((batch.trained.sum(1) == sizes).all()):
        return stream.to("cpu")
    return stream_to_trained(stream.to("cpu"), batch.trained)
