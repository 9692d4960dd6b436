"""A module that the key `import` names: only it knows the format reward of the runs on Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.rewards import Reward, register_reward


@register_reward("several-steps")
@dataclass(frozen=True)
class SeveralSteps(Reward):
    """1 for a text with a blank line between two steps."""

    def rewards(self, texts: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> list[float]:
        return [float("\n\n" in text.strip()) for text in texts]
