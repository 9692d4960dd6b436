"""Programs as process signals: sums checked exactly, and any function of the user."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.errors import SignalError
from stepcredit.settings.fields import check_fields, choice, declare, flag, number
from stepcredit.signals.programs.equations import READING, annotated_equations, holds
from stepcredit.signals.programs.functions import fingerprint_of_function, function_of, is_function
from stepcredit.signals.programs.written_sums import written_equations
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Grain, IndexedScores, Signal
from stepcredit.signals.signal_registry import register_signal

Function = Callable[[Response], Sequence[float]]


@dataclass(frozen=True)
class _Checked(Signal):
    """Steps scored by the equations they hold."""

    grain = "steps"
    neutral: float = number(0.5, "the score of a step without a readable equation")
    exact: bool = flag(False, "refuse decimals that are rounded or truncated, as 10/3=3.33")

    @staticmethod
    @abstractmethod
    def equations(text: str, following: str) -> list[str]:
        """The equations a step holds, given the text of the step after it."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def unknown_score(self) -> float | None:
        """The value of `neutral`."""
        return self.neutral

    @property
    def identity(self) -> dict[str, Any]:
        settings = {"neutral": self.neutral, "exact": self.exact}
        return {"signal": self.name, "reading": READING, **settings}

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        for index, response in enumerate(responses):
            steps = response.step_texts
            following = [*steps[1:], ""]
            yield index, list(map(self._score, steps, following))

    def _score(self, step: str, following: str) -> float:
        found = self.equations(step, following)
        verdicts = {holds(equation, exact=self.exact) for equation in found}
        if False in verdicts:
            return 0.0
        return 1.0 if True in verdicts else self.neutral


@register_signal("equations")
@dataclass(frozen=True)
class Equations(_Checked):
    """GSM8K's annotated equations, checked exactly.

        s = 0 if an equation `<<48/2=24>>` of the step is wrong, 1 if all are right

    A step without one, or with none that can be read (`<<x+2=5>>`), has the neutral score.

    Raises:
        SettingError: a field out of range.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> text = "He has 48/2=<<48/2=24>>24.\\nShe has <<24+1=26>>26.\\nA: 26"
        >>> Equations().scores(Newline()([Response.of_text("?", text)]))
        [[1.0, 0.0, 0.5]]

    Source: the annotations of Cobbe et al. 2021 (GSM8K).
    """

    @staticmethod
    def equations(text: str, following: str) -> list[str]:
        return annotated_equations(text)


@register_signal("arithmetic")
@dataclass(frozen=True)
class Arithmetic(_Checked):
    """Sums written out in running text, checked exactly.

        s = 0 if a sum `3 × 4 = 12` of the step is wrong, 1 if all are right

    Signs of LaTeX, currency, percent, thousands' commas, remainders and full-width signs are
    understood. A side counts only if nothing beside it may belong to it, and an equation only if
    the text, as far as the end of the next step, does not doubt or refute it. A step without a sum
    has the neutral score.

    Raises:
        SettingError: a field out of range.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> text = "First 3 × 4 = 12.\\nThen 12 + 9 = 20.\\nSo it is 20."
        >>> Arithmetic().scores(Newline()([Response.of_text("?", text)]))
        [[1.0, 0.0, 0.5]]
    """

    equations = staticmethod(written_equations)


@register_signal("callable")
@dataclass(frozen=True)
class Program(Signal):
    """Any function that scores a response.

        s = function(response)

    Args:
        function: takes a `Response`; returns one score per step or token.
        per: what it scores: steps or tokens.

    Raises:
        SettingError: the function can't be imported.
        SignalError: the function raised an exception; the error names the response.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> short = Program(lambda response: [1.0 / len(step) for step in response.step_texts])
        >>> short.scores(Newline()([Response.of_text("?", "ab\\nabcd")]))
        [[0.3333333333333333, 0.25]]
    """

    function: Function | str = declare(
        None, is_function, "MODULE:FUNCTION, which takes a response and gives its scores"
    )
    per: Grain = choice("steps", ("steps", "tokens"), "what the function scores")

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "function", function_of(self.function, "function"))

    @property
    def grain(self) -> Grain:
        """The value of `per`."""
        return self.per

    @property
    def identity(self) -> dict[str, Any]:
        """The function's code and closure: after a change it counts as another signal."""
        digest = fingerprint_of_function(self.function)
        return {"signal": self.name, "function": digest, "per": self.per}

    def content(self, response: Response) -> Any:
        """The whole response: a function may read any part of it."""
        whole = [response.prompt, response.text, response.spans, response.steps]
        return [
            *whole,
            response.own,
            response.ends,
            response.token_ids,
            response.prompt_ids,
            repr(sorted(response.facts.items())),
        ]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        function: Any = self.function
        for index, response in enumerate(responses):
            try:
                scores = list(map(float, function(response)))
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise SignalError(reason, field="function", place=response.name) from error
            yield index, scores
