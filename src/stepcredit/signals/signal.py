"""`Signal`: the base class of everything that scores responses, per step or per token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from stepcredit._moved import also_callable, renamed
from stepcredit.data.rules import LARGEST
from stepcredit.data.streams import Steps, Tokens
from stepcredit.errors import RolloutError, SignalError
from stepcredit.signals.responses import Response
from stepcredit.signals.unscorable import Unscorable, scored_ends

if TYPE_CHECKING:
    from stepcredit.signals.server_statistics import ServedStatistics

Grain = Literal["steps", "tokens"]
IndexedScores = tuple[int, list[float]]
"""The index of a response, and its scores."""


class Signal(ABC):
    """A process signal: it takes responses and gives one score per step or per token.

    A subclass defines `grain`, `identity` and `stream`. Scores are yielded as they are computed,
    so that a progress bar can move and a cache can keep them if the run is interrupted.

    Example:
        >>> class Length(Signal):
        ...     grain = "steps"
        ...     identity = {"signal": "length"}
        ...     def stream(self, responses):
        ...         for index, response in enumerate(responses):
        ...             yield index, [float(len(step)) for step in response.step_texts]
        >>> response = Response("?", "ab cd", spans=((0, 2), (2, 5)), steps=(2, 5))
        >>> Length()([response]).ends.tolist()
        [0, 1]
    """

    name: ClassVar[str] = ""
    reward_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that take a reward: on the command line, also one of `stepcredit rewards` by name."""
    notice_field: ClassVar[str | None] = None
    """The field, if any, that takes a function to call with a notice before scoring begins."""

    if TYPE_CHECKING:

        @property
        def grain(self) -> Grain:
            """What is scored, "steps" or "tokens": an attribute or property of the subclass."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the scores depend on, except the responses, as JSON: model, protocol, settings."""

    @abstractmethod
    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Yield (index of a response, its scores), once per response, in any order."""

    @property
    def parts(self) -> tuple[Signal, ...]:
        """The signals that this one is made of, found in its fields; most signals have none."""
        return tuple(part for value in _settings(self).values() for part in signals_in(value))

    @property
    def cacheable(self) -> bool:
        """Whether a response's scores depend on that response alone, not on others of its group.

        A signal that is made of others is cacheable if all of them are.
        """
        return all(part.cacheable for part in self.parts)

    @property
    def may_leave_out(self) -> bool:
        """Whether a response may have no score, or scores of its first steps alone.

        Responses that a model can't score may be like that: see `unscorable` of the signals that
        run models. A signal that is made of others may leave out what one of them leaves out.
        """
        return any(part.may_leave_out for part in self.parts)

    @property
    def reads_token_ids(self) -> bool:
        """Whether it needs the policy's token ids, so that it can't score a text alone.

        A signal that is made of others needs what one of them needs.
        """
        return any(part.reads_token_ids for part in self.parts)

    @property
    def unknown_score(self) -> float | None:
        """The score of a step about which the signal says nothing; None where there is none."""
        return None

    def walk(self) -> Iterator[Signal]:
        """This signal, then all that it is made of, at any depth."""
        yield self
        for part in self.parts:
            yield from part.walk()

    def with_parts(self, change: Callable[[Signal], Signal]) -> Signal:
        """A copy of this signal in which each of its parts is replaced.

        Args:
            change: called with each part, gives its replacement.

        Returns:
            The signal itself where it has no parts, or is no dataclass.
        """
        if not self.parts or not is_dataclass(self):
            return self
        names = [field.name for field in fields(self) if field.init]
        return replace(self, **{name: _changed(getattr(self, name), change) for name in names})

    @property
    def own_statistics(self) -> ServedStatistics | None:
        """The counts of its own requests to servers; None where it has no server."""
        return None

    def served_statistics(self) -> ServedStatistics | None:
        """The requests to servers since the signal was made, its parts' included.

        Take the difference of two with `ServedStatistics.since`.

        Returns:
            None if neither the signal nor one of its parts has a server.
        """
        return served_statistics_in(self)

    def content(self, response: Response) -> Any:
        """The parts of a response that its scores depend on, as JSON."""
        if self.grain == "steps":
            return [response.prompt, response.step_texts]
        return [response.prompt_ids, response.token_ids]

    def cost(self, responses: Sequence[Response]) -> object | None:
        """What scoring the responses takes, as something with a text; None: it is not counted.

        Args:
            responses: split into steps if the grain is steps.
        """
        return None

    def scores(
        self, responses: Sequence[Response], progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        """Scores in the order of the responses.

        Args:
            responses: split into steps if the grain is steps.
            progress: called with the number of responses scored so far.

        Returns:
            One list per response, with one score per step or per token. Where `may_leave_out`, it
            may be empty, or hold the scores of the first steps alone.

        Raises:
            RolloutError: a response cannot be scored; the error names it.
            SignalError: a model or server failed, or the scores of a response are not one finite
                number per step or token.
        """
        responses = named(responses)
        return in_order(responses, self.checked(responses), progress)

    def checked(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """The same as `stream`, after checking the scores of each response."""
        if self.grain == "steps":
            for response in responses:
                if response.steps is None:
                    raise RolloutError("not split into steps", field="steps", place=response.name)
        may_leave_out = self.may_leave_out  # it searches all fields, of which one may be long
        for index, scores in self.stream(responses):
            check_scores(responses[index], scores, self.grain, may_leave_out)
            yield index, scores

    def __call__(self, responses: Sequence[Response]) -> Steps | Tokens:
        """Scores as a stream for `Rollouts`: aligned to the policy's tokens, in the same order.

        Where a response's last steps have no score, they belong to its last step that has one.

        Raises:
            RolloutError, SignalError: as in `scores`.
        """
        scores = self.scores(responses)
        if self.grain == "tokens":
            return Tokens(scores)
        pairs = zip(responses, scores, strict=True)
        ends = [scored_ends(response.step_ends, len(own)) for response, own in pairs]
        return Steps(ends=ends, scores=scores)


def named(responses: Sequence[Response]) -> list[Response]:
    """The responses; each that has no name is named after its row."""
    return [r if r.name else replace(r, name=f"row {row}") for row, r in enumerate(responses)]


def in_order(
    responses: Sequence[Response],
    stream: Iterator[IndexedScores],
    progress: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Scores in the order of the responses, from a stream in any order.

    Raises:
        SignalError: a response was not scored, or was scored twice.
    """
    found: dict[int, list[float]] = {}
    for index, scores in stream:
        if index in found:
            raise SignalError("was scored twice", place=responses[index].name)
        found[index] = scores
        if progress is not None:
            progress(len(found))
    for index, response in enumerate(responses):
        if index not in found:
            raise SignalError("was not scored", place=response.name)
    return [found[index] for index in range(len(responses))]


def concat(
    signals: Sequence[Signal], responses: Sequence[Response]
) -> Iterator[tuple[int, list[list[float]]]]:
    """Run one signal after the other; yield (index of a response, its scores by each signal).

    Raises:
        RolloutError, SignalError: as in `Signal.scores`.
    """
    rows: list[list[list[float]]] = [[] for _ in responses]
    for signal in signals:
        for index, scores in signal.checked(responses):
            rows[index].append(scores)
            if len(rows[index]) == len(signals):
                yield index, rows[index]


def check_scores(
    response: Response, scores: Sequence[float], grain: Grain, may_leave_out: bool = False
) -> None:
    """Refuse scores that are not one finite number per step or token.

    Args:
        response: split into steps if steps are scored.
        scores: its scores.
        grain: what is scored.
        may_leave_out: whether there may be no scores, or scores of the first steps alone.

    Raises:
        SignalError: it names the response.
    """
    expected = len(response.steps or ()) if grain == "steps" else response.num_tokens
    try:
        count = len(scores)
    except TypeError:
        reason = f"the scores are {scores!r}, expected a list of numbers"
        raise SignalError(reason, place=response.name) from None
    left_out = may_leave_out and (count == 0 or (grain == "steps" and count < expected))
    if count != expected and not left_out:
        raise SignalError(f"{count} scores for {expected} {grain}", place=response.name)
    for index, score in enumerate(scores):
        if not _fits(score):
            why = ", too large for float32" if _fits(score, inf) else ""
            raise SignalError(
                f"the score of {grain[:-1]} {index} is {score}{why}", place=response.name
            )


def _fits(score: Any, below: float = LARGEST) -> bool:
    """Whether a score is a finite number within ± `below`."""
    try:
        return bool(abs(score) <= below) and isfinite(score)
    except TypeError:  # a user's signal may give anything
        return False


def refuse_empty(response: Response) -> None:
    """Refuse a response that holds nothing but space: learned models give it a high score.

    Raises:
        Unscorable: it names the response.
    """
    if response.is_empty:
        reason = "is empty: learned models score it high; empty='score' lets them"
        raise Unscorable(reason, field="text", place=response.name)


def signals_in(value: Any) -> Iterator[Signal]:
    """The signals in a value: a signal, or a mapping, list or tuple of them, nested or not.

    Args:
        value: of any type; any other value holds no signals.

    Returns:
        The outermost signals; `Signal.walk` also gives their parts.
    """
    if isinstance(value, Signal):
        yield value
    elif isinstance(value, Mapping):
        yield from signals_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from signals_in(item)


def distinct_signals(value: Any) -> list[Signal]:
    """The signals in a value and their parts, each object once, in however many places it is.

    What an object counts of itself, such as its requests, must not be added up once per place.

    Args:
        value: as for `signals_in`.

    Example:
        >>> from stepcredit.signals.combine import Weighted
        >>> from stepcredit.signals.signal_registry import signal
        >>> shared = signal("equations")
        >>> len(distinct_signals(Weighted((shared, shared))))
        2
    """
    walked = (each for outer in signals_in(value) for each in outer.walk())
    return list({id(each): each for each in walked}.values())


def served_statistics_in(value: Any) -> ServedStatistics | None:
    """The requests to servers of all signals in a value; None: none of them has a server.

    Args:
        value: as for `signals_in`.
    """
    from stepcredit.signals.server_statistics import sum_statistics

    found = [each.own_statistics for each in distinct_signals(value)]
    counted = [each for each in found if each is not None]
    return sum_statistics(counted) if counted else None


def _settings(signal: Signal) -> dict[str, Any]:
    """The values of a signal's fields."""
    if is_dataclass(signal):
        return {field.name: getattr(signal, field.name) for field in fields(signal)}
    return vars(signal)


def _changed(value: Any, change: Callable[[Signal], Signal]) -> Any:
    """A field's value with its signals replaced."""
    if isinstance(value, Signal):
        return change(value)
    if next(signals_in(value), None) is None:
        return value
    if isinstance(value, Mapping):
        return {key: _changed(item, change) for key, item in value.items()}
    return tuple(_changed(item, change) for item in value)


__getattr__ = partial(renamed, __name__)
also_callable(__name__, "signal")
