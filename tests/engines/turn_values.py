"""Two trajectories of two turns, and what PASS gives their turns, written out."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
import torch

SCORES = [[0.9, 0.4], [0.2, 0.6]]
"""A score per turn; the outcomes are 1 and 0."""


def expected(k: float = 1.0) -> list[list[float]]:
    """PASS of these scores by turn."""
    values = torch.tensor(SCORES).double()
    z = ((values - values.mean()) / (values.std() + 1e-6)).tolist()
    out = 0.5 / (0.5**0.5 + 1e-6)
    return [
        [(row[0] + row[1] + 2 * sign * out) / 2**k, row[1] + sign * out]
        for row, sign in zip(z, (1, -1), strict=True)
    ]


def by_token(mask: list[int], turns: list[float]) -> Any:
    """A turn's value on each token of its run, and 0 between the runs."""
    values, at = [], -1
    for place, flag in enumerate(mask):
        at += flag and (place == 0 or not mask[place - 1])
        values.append(turns[at] if flag else 0.0)
    return pytest.approx(values, abs=1e-5)


def real_or(patch: pytest.MonkeyPatch, modules: dict[str, dict[str, Any]]) -> bool:
    """Whether the modules of a trainer can be imported; if not, these stand for them.

    Args:
        patch: takes the stand-ins away again.
        modules: by name, what an example imports of it.
    """
    try:
        for name in modules:
            import_module(name)
    except ImportError:
        for name, members in modules.items():
            parts = name.split(".")
            for depth in range(1, len(parts) + 1):
                inner = ".".join(parts[:depth])
                if inner not in sys.modules or depth == len(parts):
                    patch.setitem(sys.modules, inner, ModuleType(inner))
            vars(sys.modules[name]).update(members)
        return False
    return True
