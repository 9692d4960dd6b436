"""How many cases each fuzz test runs, and the random generator of one case."""

from __future__ import annotations

import os
import random

CASES = int(os.environ.get("STEPCREDIT_FUZZ_CASES", "2000"))
"""Cases per surface: 2,000 in `make test`; set STEPCREDIT_FUZZ_CASES for a long run by hand."""


def generator(surface: str, case: int) -> random.Random:
    """The generator of one case: the same surface and number always give the same case."""
    return random.Random(f"{surface}:{case}")
