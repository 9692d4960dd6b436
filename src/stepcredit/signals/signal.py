"""`Signal`: the one face of everything that scores responses, step by step or token by token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import inf, isfinite
from typing import Any, ClassVar, Literal

from stepcredit._moved import also_callable
from stepcredit.data.rules import LARGEST
from stepcredit.data.streams import Steps, Tokens
from stepcredit.errors import RolloutError, SignalError
from stepcredit.signals.responses import Response, at

Scored = tuple[int, list[float]]


class Signal(ABC):
    """A process signal: responses in, one score a step or a token out.

    A subclass gives `grain`, `identity` and `stream`; the rest follows. Scores come as they are
    done, so that a progress bar moves and a cache keeps what an interruption would lose.

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
    grain: ClassVar[Literal["steps", "tokens"]]
    cacheable: ClassVar[bool] = True
    """Whether a response's scores depend on it alone, and not on the others of its group."""

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the scores depend on besides the responses, as JSON: model, protocol, settings."""

    @abstractmethod
    def stream(self, responses: Sequence[Response]) -> Iterator[Scored]:
        """(index of a response, its scores), each once, in whatever order they are done."""

    def content(self, response: Response) -> Any:
        """What of a response its scores depend on, as JSON."""
        if self.grain == "steps":
            return [response.prompt, response.step_texts]
        return [response.prompt_ids, response.token_ids]

    def scores(
        self, responses: Sequence[Response], progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        """Scores in the responses' order.

        Args:
            responses: split into steps, where the grain is steps.
            progress: called with the number of responses scored so far.

        Returns:
            One row a response: a score a step, or a score a token.

        Raises:
            RolloutError: a response that cannot be scored, by name.
            SignalError: a model or server that failed, or a row of scores that is not one finite
                number a step or token.
        """
        responses = named(responses)
        return gathered(responses, self.checked(responses), progress)

    def checked(self, responses: Sequence[Response]) -> Iterator[Scored]:
        """`stream`, with every row of scores checked."""
        if self.grain == "steps":
            for response in responses:
                if response.steps is None:
                    raise at(response, RolloutError, "not split into steps", field="steps")
        for index, scores in self.stream(responses):
            check_scores(responses[index], scores, self.grain)
            yield index, scores

    def __call__(self, responses: Sequence[Response]) -> Steps | Tokens:
        """Scores as a stream of the core, aligned to the policy's tokens, in the same order.

        Raises:
            RolloutError, SignalError: as `scores`.
        """
        scores = self.scores(responses)
        if self.grain == "tokens":
            return Tokens(scores)
        return Steps(ends=[response.step_ends for response in responses], scores=scores)


def named(responses: Sequence[Response]) -> list[Response]:
    """The responses, those without a name called by their row."""
    return [r if r.name else replace(r, name=f"row {row}") for row, r in enumerate(responses)]


def gathered(
    responses: Sequence[Response],
    stream: Iterator[Scored],
    progress: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Rows of scores in the responses' order, however they came.

    Raises:
        SignalError: a response without scores, or with two rows of them.
    """
    found: dict[int, list[float]] = {}
    for index, scores in stream:
        if index in found:
            raise at(responses[index], SignalError, "was scored twice")
        found[index] = scores
        if progress is not None:
            progress(len(found))
    for index, response in enumerate(responses):
        if index not in found:
            raise at(response, SignalError, "was not scored")
    return [found[index] for index in range(len(responses))]


def joined(
    signals: Sequence[Signal], responses: Sequence[Response]
) -> Iterator[tuple[int, list[list[float]]]]:
    """(index of a response, its rows of scores, one a signal), one signal after the other.

    Raises:
        RolloutError, SignalError: as `Signal.scores`.
    """
    rows: list[list[list[float]]] = [[] for _ in responses]
    for signal in signals:
        for index, scores in signal.checked(responses):
            rows[index].append(scores)
            if len(rows[index]) == len(signals):
                yield index, rows[index]


def check_scores(
    response: Response, scores: Sequence[float], grain: Literal["steps", "tokens"]
) -> None:
    """Refuse scores that are not one finite number a step or token.

    Raises:
        SignalError: under the response's name.
    """
    expected = len(response.steps or ()) if grain == "steps" else response.num_tokens
    try:
        count = len(scores)
    except TypeError:
        reason = f"the scores are {scores!r}, expected a list of numbers"
        raise at(response, SignalError, reason) from None
    if count != expected:
        raise at(response, SignalError, f"{count} scores for {expected} {grain}")
    for index, score in enumerate(scores):
        if not _fits(score):
            why = ", too large for float32" if _fits(score, inf) else ""
            raise at(response, SignalError, f"the score of {grain[:-1]} {index} is {score}{why}")


def _fits(score: Any, below: float = LARGEST) -> bool:
    """Whether it is a finite number within ± below."""
    try:
        return bool(abs(score) <= below) and isfinite(score)
    except TypeError:  # what a signal of one's own gives may be anything
        return False


def refuse_empty(response: Response) -> None:
    """Refuse a response without a character other than space: learned models score it high.

    Raises:
        RolloutError: under the response's name.
    """
    if response.is_empty:
        reason = "is empty: learned models score it high; empty='score' lets them"
        raise at(response, RolloutError, reason, field="text")


also_callable(__name__, "signal")
