"""What tokens of the page can be coloured by, and the scale of each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LayerKind = Literal["stage", "stream"]
FINAL = "advantage"
"""The stage that the advantages are."""
OUTSIDE = 0.02
"""Share of the values at either end that gets the full colour."""


def colour_scale(values: Floats) -> tuple[float, float]:
    """The value without colour, and how far from it the colour is full.

    The middle is 0 where values have both signs, else their median; 2 % of the values at either
    end may lie beyond the full colour.

    Example:
        >>> colour_scale(np.array([-1.0, 0.0, 3.0])), colour_scale(np.array([2.0, 2.0]))
        ((0.0, 3.0), (2.0, 1.0))
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, middle, high = np.quantile(known, [OUTSIDE, 0.5, 1 - OUTSIDE], method="nearest")
    if known.min() < 0 < known.max():
        middle = 0.0
    reach = max(abs(low - middle), abs(high - middle), 0.0)
    reach = reach or float(np.abs(known - middle).max()) or 1.0
    return float(middle), float(reach)


@dataclass
class ColourLayers:
    """Collects the values of the shown responses by layer: a stream, or a stage of a method.

    Example:
        >>> layers = ColourLayers()
        >>> layers.add("stream", "process", "", np.array([0.0, 1.0]))
        >>> layers.add("stage", "advantage", "pass", np.array([-1.0, 2.0]))
        >>> [(layer["name"], layer["scales"]) for layer in layers.as_json()]
        [('advantage', {'pass': [0.0, 2.0]}), ('process', {'': [0.0, 1.0]})]
    """

    _values: dict[tuple[LayerKind, str], dict[str, list[Floats]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    def add(self, kind: LayerKind, name: str, method: str, values: NDArray[Any]) -> None:
        """Add a response's values.

        Args:
            kind: "stage" or "stream".
            name: of the stage or the stream.
            method: whose stage it is; "" for a stream.
            values: one per token, step or chunk.
        """
        self._values[kind, name][method].append(np.asarray(values, dtype=np.float64))

    def as_json(self) -> list[dict[str, Any]]:
        """The layers as plain values: the final advantage, the streams, then the stages."""
        ordered = sorted(self._values, key=lambda key: (key[1] != FINAL, key[0] == "stage"))
        return [
            {"kind": kind, "name": name, "scales": _scales(self._values[kind, name])}
            for kind, name in ordered
        ]


def _scales(values: dict[str, list[Floats]]) -> dict[str, list[float]]:
    """The scale of each method, with three digits more than a colour shows."""
    scales = {method: colour_scale(np.concatenate(found)) for method, found in values.items()}
    return {method: [float(f"{x:.5g}") for x in scale] for method, scale in scales.items()}
