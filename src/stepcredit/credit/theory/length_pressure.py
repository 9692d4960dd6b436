"""Length pressure: the rule by which one more chunk changes the path score of PASS.

The *path score* of a response is S = T / K^k, of K chunks whose values sum to T. This file has the
exact change of S by one more chunk, and the limit of S when a policy pads the response with
redundant chunks of one value. All functions take plain numbers.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from stepcredit.credit.theory.arguments import finite_number, not_negative, positive_whole

_TIE = 1e-12  # path scores that differ by less than this share are equal
_FARTHEST = 1 << 60  # padding that is searched; beyond it, one more chunk is lost in float64


def path_score(
    total: float, chunks: int, k: float, *, filler: float = 0.0, padding: float = 0
) -> float:
    """PASS's path score of a response, padded or not.

        S(m) = (T + m eps) / (K + m)^k

    Args:
        total: T, sum of the response's chunk values A_b; finite, any sign.
        chunks: K, number of chunks, at least 1.
        k: Divide-Length's exponent, at least 0.
        filler: eps, value of one redundant chunk; finite, any sign.
        padding: m, number of redundant chunks appended, at least 0; need not be whole.

    Returns: float. Never NaN; an infinity only where S itself is beyond float64.

    Raises: MethodError on a number out of range.

    Example:
        >>> path_score(3.0, 6, k=1.0)
        0.5
        >>> round(path_score(3.0, 6, k=1.0, filler=0.2, padding=4), 6)
        0.38

    Source: PASS (arXiv 2606.29296), Eq. 7 at the first chunk.
    """
    total, chunks, k = (
        finite_number(total, "total"),
        positive_whole(chunks, "chunks"),
        not_negative(k, "k"),
    )
    filler, padding = finite_number(filler, "filler"), not_negative(padding, "padding")
    scale = math.pow(chunks + padding, -k)
    return total * scale + filler * (padding * scale)


def admission_threshold(total: float, chunks: int, k: float) -> float:
    """The value above which one more chunk raises the path score, exactly.

        S' > S   iff   delta > T [(1 + 1/K)^k - 1]

    Args:
        total: T, sum of the response's chunk values; finite, any sign.
        chunks: K, number of chunks before the new one, at least 1.
        k: Divide-Length's exponent, at least 0.

    Returns: float; 0 where T = 0 or k = 0, the mean T/K at k = 1; negative where T is: there
        a chunk of negative value can raise the score.

    Raises: MethodError on a number out of range.

    Example:
        >>> admission_threshold(3.0, 6, k=1.0)
        0.5
        >>> round(admission_threshold(3.0, 6, k=0.7), 4)
        0.3418

    Source: exact, where PASS (arXiv 2606.29296) has the first-order law of Eq. 8.
    """
    total, chunks, k = (
        finite_number(total, "total"),
        positive_whole(chunks, "chunks"),
        not_negative(k, "k"),
    )
    growth = k * math.log1p(1 / chunks)
    if growth < 700:  # beyond, expm1 leaves float64
        return total * math.expm1(growth)
    return math.copysign(math.inf, total) if total else 0.0


def first_order_change(total: float, chunks: int, delta: float, k: float) -> float:
    """Change of the path score by one more chunk, to first order in 1/K.

        S' - S ~ K^-k (delta - k T/K)

    Args:
        total: T, sum of the response's chunk values; finite, any sign.
        chunks: K, number of chunks before the new one, at least 1.
        delta: value of the new chunk; finite, any sign.
        k: Divide-Length's exponent, at least 0.

    Returns: float; exact at k = 0, and short by O(1/K) of itself elsewhere.

    Raises: MethodError on a number out of range.

    Example:
        >>> round(first_order_change(3.0, 6, delta=0.2, k=1.0), 4)
        -0.05
        >>> round(path_score(3.2, 7, k=1.0) - path_score(3.0, 6, k=1.0), 4)
        -0.0429

    Source: PASS (arXiv 2606.29296), Eq. 8. Differs: T where the paper prints S.
    """
    total, delta = finite_number(total, "total"), finite_number(delta, "delta")
    chunks, k = positive_whole(chunks, "chunks"), not_negative(k, "k")
    scale = math.pow(chunks, -k)
    return scale * delta - scale * k * (total / chunks)


def eq8_change(total: float, chunks: int, delta: float, k: float) -> float:
    """The same change as the PASS paper prints it, for comparison: wrong unless k = 0 or K = 1.

        K^-k (delta - k S/K),   S = T / K^k

    Args:
        total: T, sum of the response's chunk values; finite, any sign.
        chunks: K, number of chunks before the new one, at least 1.
        delta: value of the new chunk; finite, any sign.
        k: Divide-Length's exponent, at least 0.

    Returns: float. Where T > 0 it admits too much: its threshold k S/K is K^k times too small.

    Raises: MethodError on a number out of range.

    Example: a chunk which lowers S by 0.04 is said to raise it.
        >>> round(eq8_change(3.0, 6, delta=0.2, k=1.0), 4)
        0.0194

    Source: PASS (arXiv 2606.29296), Eq. 8, as printed.
    """
    score = path_score(total, chunks, k)
    return first_order_change(score, chunks, delta, k)


def turning_point(total: float, chunks: int, filler: float, k: float) -> float | None:
    """The padding at which the path score turns.

        m* = (k T - eps K) / (eps (1 - k))

    For eps > 0 it is S's minimum over m at k < 1 (a dip, then growth without end) and its maximum
    at k > 1; for eps < 0 the other way round.

    Args:
        total: T, sum of the chunk values before padding; finite, any sign.
        chunks: K, number of chunks before padding, at least 1.
        filler: eps, value of one redundant chunk; finite, any sign.
        k: Divide-Length's exponent, at least 0.

    Returns: m* > 0, in general not whole; None where S is monotone (eps = 0, k = 1, m* not
        above 0) or m* is beyond float64.

    Raises: MethodError on a number out of range.

    Example:
        >>> round(turning_point(6.0, 6, filler=0.4, k=0.7), 3)
        15.0
        >>> turning_point(6.0, 6, filler=0.4, k=1.0) is None
        True

    Source: this corrects the finite optimum claimed in PASS (arXiv 2606.29296).
    """
    total, chunks = finite_number(total, "total"), positive_whole(chunks, "chunks")
    filler, k = finite_number(filler, "filler"), not_negative(k, "k")
    if filler == 0 or k == 1:
        return None
    turn = (k * (total / filler) - chunks) / (1 - k)
    return turn if 0 < turn < math.inf else None


def path_score_limit(total: float, filler: float, k: float) -> float:
    """Where the path score goes as redundant chunks pile up.

        lim S(m) = +-inf (sign of eps) at k < 1,   eps at k = 1,   0 at k > 1

    Args:
        total: T, sum of the chunk values before padding; finite. It matters only at eps = 0, k = 0.
        filler: eps, value of one redundant chunk; finite, any sign.
        k: Divide-Length's exponent, at least 0.

    Returns: float, maybe infinite. With eps = 0: T at k = 0, else 0.

    Raises: MethodError on a number out of range.

    Example:
        >>> [path_score_limit(6.0, 0.4, k) for k in (0.7, 1.0, 1.2)]
        [inf, 0.4, 0.0]

    Source: this corrects the finite optimum claimed in PASS (arXiv 2606.29296).
    """
    total, filler = finite_number(total, "total"), finite_number(filler, "filler")
    k = not_negative(k, "k")
    if k > 1:
        return 0.0
    if k == 1:
        return filler
    if filler == 0:
        return total if k == 0 else 0.0
    return math.copysign(math.inf, filler)


def best_padding(total: float, chunks: int, filler: float, k: float) -> float:
    """The number of redundant chunks that maximizes the path score.

    The response's best length is K plus this. With eps > 0 it is infinite at k < 1, whatever T and
    K; at k = 1 it is finite iff T/K >= eps (at equality every length is as good); at k > 1 always.

    Args:
        total: T, sum of the chunk values before padding; finite, any sign.
        chunks: K, number of chunks before padding, at least 1.
        filler: eps, value of one redundant chunk; finite, any sign.
        k: Divide-Length's exponent, at least 0.

    Returns: a whole number, the smallest where several are equally good (to 1e-12); math.inf
        where the limit is above every attained score.

    Raises: MethodError on a number out of range.

    Example:
        >>> [best_padding(6.0, 6, filler=0.4, k=k) for k in (0.7, 1.0, 1.2)]
        [inf, 0, 0]
        >>> best_padding(6.0, 6, filler=2.0, k=1.2)
        12

    Source: this corrects the finite optimum claimed in PASS (arXiv 2606.29296).
    """
    turn = turning_point(total, chunks, filler, k)
    near = () if turn is None else (math.floor(turn), math.ceil(turn))
    padded = [(m, path_score(total, chunks, k, filler=filler, padding=m)) for m in near]
    best: float = 0
    score = path_score(total, chunks, k)
    for padding, value in [*padded, (math.inf, path_score_limit(total, filler, k))]:
        if value > score + _TIE * abs(score):
            best, score = padding, value
    return best


def worst_padding(total: float, chunks: int, filler: float, k: float) -> float:
    """The number of redundant chunks that minimizes the path score.

    Args:
        total: T, sum of the chunk values before padding; finite, any sign.
        chunks: K, number of chunks before padding, at least 1.
        filler: eps, value of one redundant chunk; finite, any sign.
        k: Divide-Length's exponent, at least 0.

    Returns: a whole number, the smallest where several are equally bad (to 1e-12); math.inf
        where the limit is below every attained score.

    Raises: MethodError on a number out of range.

    Example:
        >>> worst_padding(6.0, 6, filler=0.4, k=0.7), worst_padding(6.0, 6, filler=0.4, k=1.0)
        (15, inf)

    Source: S(-T, -eps) = -S(T, eps).
    """
    return best_padding(-finite_number(total, "total"), chunks, -finite_number(filler, "filler"), k)


def paying_padding(total: float, chunks: int, filler: float, k: float) -> float:
    """The fewest redundant chunks that raise the path score above that of the unpadded response.

        min {m >= 1 : S(m) > S(0)}

    From here on the claim that Divide-Length makes padding useless fails: a response stretched to
    (K + m)/K times its chunks is paid more. At 0 < k < 1 it is finite for every eps > 0.

    Args:
        total: T, sum of the chunk values before padding; finite, any sign.
        chunks: K, number of chunks before padding, at least 1.
        filler: eps, value of one redundant chunk; finite, any sign.
        k: Divide-Length's exponent, at least 0.

    Returns: a whole number, at least 1; math.inf where no padding raises the score.

    Raises: MethodError on a number out of range.

    Example:
        >>> [paying_padding(6.0, 6, filler=0.4, k=k) for k in (0.0, 0.7, 1.0)]
        [1, 88, inf]

    Source: this corrects the finite optimum claimed in PASS (arXiv 2606.29296).
    """
    score = path_score(total, chunks, k)
    least = score + _TIE * abs(score)

    def pays(padding: float) -> bool:
        return path_score(total, chunks, k, filler=filler, padding=padding) > least

    if pays(1):
        return 1
    if path_score_limit(total, filler, k) <= least:
        return math.inf  # S falls at first, and turns at most once
    high = 2
    while not pays(high):
        high *= 2
        if high > _FARTHEST:
            return math.inf
    return bisect_left(range(high + 1), True, lo=high // 2, key=pays)


def outcome_weight(residual_chunks: int, k: float) -> float:
    """Weight of the outcome (and the format) in the advantage of a chunk, under scope "fused".

        n / n^k = n^(1 - k),   n = K - j + 1

    Args:
        residual_chunks: n, chunks from this one to the response's end, both included, at least 1.
        k: Divide-Length's exponent, at least 0.

    Returns: float; n at k = 0, 1 at k = 1.

    Raises: MethodError on a number out of range.

    Example:
        >>> [round(outcome_weight(10, k), 2) for k in (0.0, 0.7, 1.0)]
        [10.0, 2.0, 1.0]

    Source: PASS (arXiv 2606.29296), Algorithm 3, applied to a constant value.
    """
    return math.pow(positive_whole(residual_chunks, "residual_chunks"), 1 - not_negative(k, "k"))
