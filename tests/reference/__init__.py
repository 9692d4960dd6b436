"""Every method again, from the papers, in loops and float64; imports nothing of stepcredit."""

from __future__ import annotations

from .methods import advantages
from .rows import trained

__all__ = ["advantages", "trained"]
