"""Signals made of other signals: rescaled, smoothed, clipped, or added with weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from math import fsum
from typing import Any, TypeVar

from stepcredit.errors import SettingError
from stepcredit.settings.fields import check_fields, declare, is_instance, is_number, number
from stepcredit.settings.registry import Registry
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Grain, IndexedScores, Signal, concat
from stepcredit.signals.signal_registry import SIGNALS, register_signal

_NUMBER = is_number()
_HERE, _ALONG = "stepcredit.signals.combine", "stepcredit.signals.score_maps"
OWN_MAPS = {
    "affine": _HERE,
    "smooth": _HERE,
    "clip": _HERE,
    "difference": _ALONG,
    "discounted": _ALONG,
    "cap-filler": _ALONG,
    "aggregate": _ALONG,
}
"""Our own maps and the modules that register them."""
Map = TypeVar("Map", bound="type[MappedSignal]")
_PLAIN = int | float | str

MAPS = Registry[Signal]("map", "stepcredit.maps", own=OWN_MAPS)
"""Maps of a signal's scores, by name; each is built with the `signal` whose scores it changes."""


def register_map(name: str) -> Callable[[Map], Map]:
    """Register a map under a name, for `--map`, and as a signal made of another signal.

    Raises:
        SettingError: another map or signal has that name.
    """
    return lambda cls: SIGNALS.register(name)(MAPS.register(name)(cls))


def inner_signal(value: Any, field: str) -> Signal:
    """The signal that a field of another signal holds or names.

    Args:
        value: a signal, its name, or {name: fields}.
        field: the field, for errors.

    Raises:
        SettingError: no such signal, or a bad field of it; it begins with the field.

    Example:
        >>> inner_signal({"equations": {"neutral": 0.5}}, "signal").neutral
        0.5
    """
    return value if isinstance(value, Signal) else SIGNALS.build_inner(value, field)


@dataclass(frozen=True)
class MappedSignal(Signal):
    """Base class of the signals that change the scores of another signal.

    A subclass defines `mapped`, for each score alone, or `mapped_row`, for those of a response.

    Args:
        signal: the other signal, its name, or {name: fields}.
    """

    signal: Signal = declare(
        MISSING,
        is_instance(Signal, "a signal"),
        "the signal whose scores are changed: its name, or {name: fields}",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "signal", inner_signal(self.signal, "signal"))
        check_fields(self)

    @property
    def grain(self) -> Grain:
        """What the other signal scores."""
        return self.signal.grain

    @property
    def identity(self) -> dict[str, Any]:
        """The map's settings, and the identity of the other signal."""
        own = {name: value for name, value in vars(self).items() if isinstance(value, _PLAIN)}
        own["cacheable"] = self.cacheable
        return {"map": type(self).__name__, **own, "of": self.signal.identity}

    def content(self, response: Response) -> Any:
        """What the other signal's scores depend on."""
        return self.signal.content(response)

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """The changed scores, in the order of the other signal."""
        for index, scores in self.signal.checked(responses):
            yield index, self.mapped_row(scores)

    def mapped_row(self, scores: Sequence[float]) -> list[float]:
        """The changed scores of one response."""
        return [self.mapped(score) for score in scores]

    def mapped(self, score: float) -> float:
        """The changed value of one score."""
        raise NotImplementedError


@register_map("affine")
@dataclass(frozen=True)
class Affine(MappedSignal):
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


@register_map("smooth")
@dataclass(frozen=True)
class Smoothed(MappedSignal):
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


@register_map("clip")
@dataclass(frozen=True)
class Clipped(MappedSignal):
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


def _named(value: Any) -> Any:
    """The signal that a name or {name: fields} stands for; any other value unchanged."""
    return inner_signal(value, "signals") if isinstance(value, str | Mapping) else value


def _are_weights(value: Any) -> str | None:
    rows = value is None or (isinstance(value, list | tuple) and not any(map(_NUMBER, value)))
    return None if rows else "numbers"


@register_signal("weighted")
@dataclass(frozen=True)
class Weighted(Signal):
    """A weighted sum of signals that score the same steps, or the same tokens.

        s' = sum_i w_i s_i

    Args:
        signals: of one grain: signals, or for each its name or {name: fields}.
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

    signals: Sequence[Signal] = declare(
        MISSING, _are_signals, "the signals added up: for each its name, or {name: fields}"
    )
    weights: Sequence[float] | None = declare(None, _are_weights, "one weight per signal")

    def __post_init__(self) -> None:
        if isinstance(self.signals, list | tuple):
            object.__setattr__(self, "signals", [_named(each) for each in self.signals])
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
