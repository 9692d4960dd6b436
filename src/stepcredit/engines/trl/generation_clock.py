"""Seconds of the training steps on a generation, of which scoring has its share."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from stepcredit.engines.scoring_costs import ScoringCost, step_shares


@dataclass
class GenerationClock:
    """Adds up the time from the sampling of a generation to the last update on it.

    Args:
        seconds: of the training steps on the current generation, until now.
        scoring: seconds of scoring it, by stream.

    Example:
        >>> clock = GenerationClock()
        >>> clock.scored({"prm": ScoringCost(1.0)})
        >>> with clock.running():
        ...     pass
        >>> list(clock.ended()), clock.scoring
        (['scoring_step_share/prm'], {})
    """

    seconds: float = 0.0
    scoring: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure a part of a training step."""
        before = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - before

    def scored(self, costs: Mapping[str, ScoringCost]) -> None:
        """Keep what scoring the generation took."""
        self.scoring = {name: cost.seconds for name, cost in costs.items()}

    def ended(self) -> dict[str, float]:
        """The shares of the generation that is used up; then begin anew."""
        shares = step_shares(self.scoring, self.seconds)
        self.seconds, self.scoring = 0.0, {}
        return shares
