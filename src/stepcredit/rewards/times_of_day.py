"""Reads times of day: 3:30 PM is 15:30, and neither is 3:30 AM."""

from __future__ import annotations

import re
from typing import NamedTuple

_TIME = re.compile(
    r"(?P<hour>[0-9]{1,2})(?:\s*:\s*(?P<minute>[0-5][0-9])(?:\s*:\s*(?P<second>[0-5][0-9]))?)?"
    r"\s*(?P<half>[ap]\.?\s*m\.?|noon|midnight)?",
    re.IGNORECASE,
)
_WRAPPER = re.compile(r"\\[a-zA-Z]+\s*\{|[{}$~]|\\[,;: ]")


class TimeOfDay(NamedTuple):
    """A time of day: `half` is "a" before noon, "p" after it, and None if the text does not say."""

    hour: int
    minute: int
    second: int
    half: str | None

    def matches(self, other: TimeOfDay) -> bool:
        """Whether the other is this time; a half of the day that one leaves open may be either."""
        if self[1:3] != other[1:3]:
            return False
        if self.half and other.half:
            return (*self[:2], self.half) == (*other[:2], other.half)
        return self.hour == other.hour or self._on_24_hours() == other._on_24_hours()

    def _on_24_hours(self) -> int:
        if self.half is None:
            return self.hour
        return self.hour % 12 + (12 if self.half == "p" else 0)


def time_of_day(answer: str) -> TimeOfDay | None:
    r"""The time that an answer is; None if it is none. A number alone needs its half of the day.

    Example:
        >>> time_of_day(r"3:30\text{ p.m.}")
        TimeOfDay(hour=3, minute=30, second=0, half='p')
        >>> time_of_day("3:30").matches(time_of_day("15:30")), time_of_day("3")
        (False, None)
    """
    found = _TIME.fullmatch(" ".join(_WRAPPER.sub(" ", answer[:80]).split()).rstrip(".").strip())
    if found is None or not (found["minute"] or found["half"]):
        return None
    hour, half = int(found["hour"]), (found["half"] or "").lower()[:1] or None
    half = {"n": "p", "m": "a"}.get(half or "", half)
    if hour > (12 if half else 24):
        return None
    return TimeOfDay(hour, int(found["minute"] or 0), int(found["second"] or 0), half)
