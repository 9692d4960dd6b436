"""The unbiased estimator of pass@k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stepcredit.errors import StepCreditError

Counts = Sequence[int] | NDArray[np.integer]


def pass_at_k(correct: Counts, samples: int | Counts, k: int) -> NDArray[np.float64]:
    """The chance that at least one of k of a prompt's samples is right, without bias.

        pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1}^{n} (1 - k / i)

    Args:
        correct: c, right samples per prompt, 0 to n; shape (prompt,).
        samples: n, samples per prompt; one number, or shape (prompt,).
        k: samples drawn, 1 to the smallest n.

    Returns:
        float64, shape (prompt,), in [0, 1]; exactly 1 where fewer than k samples are wrong. Its
        mean over prompts is the benchmark's pass@k.

    Raises:
        StepCreditError: when a count is negative or above n, or k is not between 1 and n.

    Example:
        >>> pass_at_k([0, 1, 7], samples=8, k=2).round(3).tolist()
        [0.0, 0.25, 1.0]

    Source: Chen et al. 2021 (arXiv 2107.03374), Equation 1.
    """
    c = np.asarray(correct, dtype=np.int64)
    n = np.broadcast_to(np.asarray(samples, dtype=np.int64), c.shape)
    _check_counts(c, n, k)
    i = np.arange(1, int(n.max(initial=1)) + 1)
    in_product = (i > (n - c)[:, None]) & (i <= n[:, None])
    missed: NDArray[np.float64] = np.where(in_product, 1.0 - k / i, 1.0).clip(min=0.0).prod(axis=1)
    return 1.0 - missed


def _check_counts(c: NDArray[np.int64], n: NDArray[np.int64], k: int) -> None:
    """Refuse counts that cannot come from n samples, and a k outside 1 to n."""
    if c.ndim != 1:
        raise StepCreditError(
            f"expected one count per prompt, got shape {c.shape}", field="correct"
        )
    bad = np.flatnonzero((c < 0) | (c > n))
    if bad.size:
        row = int(bad[0])
        raise StepCreditError(f"expected 0 to {n[row]}, got {c[row]}", row=row, field="correct")
    if k < 1 or (n < k).any():
        fewest = min(n.tolist(), default=1)
        raise StepCreditError(f"expected 1 to {fewest} samples, got {k}", field="k")
