"""Signals made of other signals: rescaled, smoothed, clipped, or added with weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any

from stepcredit.errors import SettingError
from stepcredit.settings.fields import check_fields, declare, is_instance, is_number, number
from stepcredit.settings.registry import Registry
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Grain, IndexedScores, Signal, concat

_NUMBER = is_number()


MAPS = Registry[Signal]("map", "stepcredit.maps")
"""Maps of a signal's scores, by name; each is built with the `signal` whose scores it changes."""


@dataclass(frozen=True)
class _Mapped(Signal):
    """A signal that changes each score of another signal by a function."""

    signal: Signal = declare(
        None, is_instance(Signal, "a signal"), "the signal whose scores are changed"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def grain(self) -> Grain:
        return self.signal.grain

    @property
    def identity(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        own["cacheable"] = self.cacheable
        return {"map": type(self).__name__, **own, "of": self.signal.identity}

    def content(self, response: Response) -> Any:
        return self.signal.content(response)

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        for index, scores in self.signal.checked(responses):
            yield index, [self.mapped(score) for score in scores]

    def mapped(self, score: float) -> float:
        """The changed value of one score."""
        raise NotImplementedError


@MAPS.register("affine")
@dataclass(frozen=True)
class Affine(_Mapped):
    """Scores multiplied by a factor and shifted.

        s' = scale * s + shift

    Example:
        >>> from stepcredit.signals.programs.checked import Equations
        >>> Affine(Equations(), scale=2.0, shift=-1.0).mapped(0.75)
        0.5
    """

    scale: float = number(1.0, "factor of every score")
    shift: float = number(0.0, "added to every score")

    def mapped(self, score: float) -> float:
        return self.scale * score + self.shift


def rescaled(
    signal: Signal, source: tuple[float, float], target: tuple[float, float] = (0.0, 1.0)
) -> Affine:
    """A signal whose scores are moved from one range to another, such as from 0…1 to −1…1.

        s' = a' + (s - a) (b' - a') / (b - a)

    Args:
        signal: a signal whose scores lie in `source`.
        source: (a, b), the lowest and the highest score of the signal.
        target: (a', b'), the lowest and the highest score of the result.

    Raises:
        SettingError: the source range is empty.

    Example:
        >>> from stepcredit.signals.programs.checked import Equations
        >>> rescaled(Equations(), (0.0, 1.0), (-1.0, 1.0)).mapped(0.5)
        0.0
    """
    (low, high), (lowest, highest) = source, target
    if not low < high or not lowest < highest:
        raise SettingError(f"expected two ranges, got {source} and {target}", field="source")
    scale = (highest - lowest) / (high - low)
    return Affine(signal, scale=scale, shift=lowest - low * scale)


@MAPS.register("smooth")
@dataclass(frozen=True)
class Smoothed(_Mapped):
    """Label smoothing: probabilities moved towards one half.

        s' = (1 - amount) s + amount / 2

    Example:
        >>> from stepcredit.signals.programs.checked import Equations
        >>> Smoothed(Equations(), amount=0.2).mapped(1.0)
        0.9
    """

    amount: float = number(0.1, "share of one half in every score", at_least=0.0, at_most=1.0)

    def mapped(self, score: float) -> float:
        return (1.0 - self.amount) * score + self.amount / 2.0


@MAPS.register("clip")
@dataclass(frozen=True)
class Clipped(_Mapped):
    """Scores kept within bounds.

        s' = min(max(s, low), high)

    Raises:
        SettingError: bounds out of order.

    Example:
        >>> from stepcredit.signals.programs.checked import Equations
        >>> Clipped(Equations(), low=-1.0, high=0.25).mapped(0.5)
        0.25
    """

    low: float = number(-1.0, "lowest score")
    high: float = number(1.0, "highest score")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.high:
            raise SettingError(f"expected at least {self.low:g}, got {self.high:g}", field="high")

    def mapped(self, score: float) -> float:
        return min(max(score, self.low), self.high)


def _are_signals(value: Any) -> str | None:
    rows = isinstance(value, list | tuple) and len(value) > 0
    if rows and all(isinstance(item, Signal) for item in value):
        return None if len({item.grain for item in value}) == 1 else "signals of one grain"
    return "signals"


def _are_weights(value: Any) -> str | None:
    rows = value is None or (isinstance(value, list | tuple) and not any(map(_NUMBER, value)))
    return None if rows else "numbers"


@dataclass(frozen=True)
class Weighted(Signal):
    """A weighted sum of signals that score the same steps, or the same tokens.

        s' = sum_i w_i s_i

    Args:
        signals: of one grain.
        weights: one per signal; None takes the mean.

    Raises:
        SettingError: signals of different grains, or another number of weights.

    Example:
        >>> from stepcredit.signals.programs.checked import Arithmetic, Equations
        >>> both = Weighted((Arithmetic(), Equations()), weights=(0.75, 0.25))
        >>> from stepcredit.signals.splitting import Newline
        >>> both.scores(Newline()([Response.of_text("?", "2+2 = <<2+2=5>>5\\n1+1 = 2")]))
        [[0.0, 0.875]]
    """

    signals: Sequence[Signal] = declare((), _are_signals, "the signals added up")
    weights: Sequence[float] | None = declare(None, _are_weights, "one weight per signal")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.weights is None:
            object.__setattr__(self, "weights", (1.0 / len(self.signals),) * len(self.signals))
        if len(self.weights or ()) != len(self.signals):
            reason = f"expected {len(self.signals)} weights, got {self.weights!r}"
            raise SettingError(reason, field="weights")

    @property
    def grain(self) -> Grain:
        return self.signals[0].grain

    @property
    def identity(self) -> dict[str, Any]:
        return {"sum": [signal.identity for signal in self.signals], "weights": self.weights}

    def content(self, response: Response) -> Any:
        return [signal.content(response) for signal in self.signals]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        for index, rows in concat(self.signals, responses):
            yield index, [self._sum(column) for column in zip(*self._scored(rows), strict=True)]

    def _scored(self, rows: Sequence[list[float]]) -> list[list[float]]:
        """The steps that every signal scored: fewer than there are where one could not read all."""
        count = min(map(len, rows))
        return [row[:count] for row in rows]

    def _sum(self, column: Sequence[float]) -> float:
        return fsum(w * s for w, s in zip(self.weights or (), column, strict=True))
