"""Every method again, from the papers, in loops and float64; imports nothing of stepcredit."""

from __future__ import annotations

from .methods import advantages, chunk_ends_of
from .rows import trained

__all__ = ["advantages", "chunk_ends_of", "trained"]
