"""Which picture shows a series that a check reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stepcredit.audit.credit_pictures import (
    earnings_picture,
    one_more_step_picture,
    payment_picture,
    shares_picture,
)
from stepcredit.audit.method_pictures import (
    AGREEMENTS,
    agreement_picture,
    apart_picture,
    differing_rows_picture,
)
from stepcredit.audit.page_drawing import Picture
from stepcredit.audit.signal_pictures import chunk_sizes_picture, reliability_picture

_BY_SERIES: dict[tuple[str, str], Callable[[Any], Iterator[Picture]]] = {
    ("resolution", "tokens_per_chunk"): chunk_sizes_picture,
    ("contamination", "shares"): shares_picture,
    ("length", "one_more_step"): one_more_step_picture,
    ("payment", "payment"): payment_picture,
    ("attack", "earnings"): earnings_picture,
}


def series_pictures(check: str, series: Mapping[str, Any], responses: int) -> list[Picture]:
    """The pictures of a check's series; none for a series that no picture is known for.

    Args:
        check: the check's name.
        series: its series as plain values, as they stand in the JSON.
        responses: how many responses were read.

    Example:
        >>> series_pictures("another", {"curve": [1, 2]}, 8)
        []
    """
    drawn: list[Picture] = []
    for name, value in series.items():
        if check == "signal_quality" and name.startswith("reliability of "):
            drawn += reliability_picture(name, value)
        elif check == "methods" and name in AGREEMENTS:
            drawn += agreement_picture(name, value, series["methods"])
        elif (check, name) == ("methods", "apart"):
            drawn += apart_picture(value, series["least_alike"])
        elif (check, name) == ("conformance", "rows that differ"):
            drawn += differing_rows_picture(value, responses)
        elif (check, name) in _BY_SERIES:
            drawn += _BY_SERIES[check, name](value)
    return drawn
