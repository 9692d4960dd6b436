"""Names of metrics that verl averages over a step's batches."""

from __future__ import annotations

import re


def safe_name(name: str) -> str:
    """A metric's name that does not contain min, max, sum or total.

    verl averages a metric unless its name contains one of them.

    Example:
        >>> safe_name("share/gemini"), safe_name("share/prm")
        ('share/gem-ini', 'share/prm')
    """
    return re.sub(r"m(?=in|ax)|s(?=um)|t(?=otal)", r"\g<0>-", name, flags=re.IGNORECASE)
