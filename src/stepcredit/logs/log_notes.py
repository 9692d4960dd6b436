"""What a conversion left out, changed or took for granted, counted, one line each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice

from stepcredit.data.rules import counted
from stepcredit.errors import RowError

MOST_NAMED = 5
"""Groups, and lines of a file, that one line names."""
MOST_LINES = 20
"""Lines of one kind: a log of which every row is broken in a way of its own is not listed whole."""


class LogNotes:
    """Collects notes while a log is converted.

    Example:
        >>> notes = LogNotes()
        >>> notes.add("prompts are chat templates of ChatML: the question is cut out", "r.jsonl:1")
        >>> notes.leave_out(RowError("is empty", path="r.jsonl", line=2, field="text"))
        >>> print("\\n".join(notes.lines()))
        r.jsonl:1: prompts are chat templates of ChatML: the question is cut out
        r.jsonl:2: text: is empty; left out (1 row)
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._left_out: defaultdict[str, list[str]] = defaultdict(list)
        self._faults: dict[str, RowError] = {}
        self._shrunk: dict[str, tuple[int, int]] = {}

    @property
    def rows_left_out(self) -> int:
        """Rows that were left out."""
        return sum(map(len, self._left_out.values()))

    @property
    def first_fault(self) -> RowError | None:
        """The first row that was left out, and why."""
        return next(iter(self._faults.values()), None)

    def add(self, note: str, place: str, count: int = 1) -> None:
        """Note something of a response; the same note is written once, with its first place.

        Args:
            note: what to say; `{n}` stands for the number of responses, such as `3 responses`.
            place: FILE:LINE.
            count: how many responses it is about.
        """
        self._counts[note] += count
        self._first.setdefault(note, place)

    def leave_out(self, fault: RowError) -> None:
        """Note a row that is left out."""
        reason = ": ".join(filter(None, [fault.field, fault.reason]))
        self._left_out[reason].append(f"{fault.path}:{fault.line}")
        self._faults.setdefault(reason, fault)

    def shrink(self, group: str, left: int, size: int) -> None:
        """Note a group of which responses were left out."""
        self._shrunk[group] = (left, size)

    def lines(self) -> Iterator[str]:
        """Every note, one line each."""
        for note, count in islice(self._counts.items(), MOST_LINES):
            yield f"{self._first[note]}: {note.replace('{n}', counted(count, 'response'))}"
        for reason, places in islice(self._left_out.items(), MOST_LINES):
            yield f"{places[0]}: {reason}; left out ({_rows(places)})"
        rest = list(islice(self._left_out.values(), MOST_LINES, None))
        if rest:
            rows = counted(sum(map(len, rest)), "row")
            yield f"{rest[0][0]}: and {rows} left out for {len(rest)} other reasons"
        if self._shrunk:
            yield self._shrunk_line()

    def _shrunk_line(self) -> str:
        named = [
            f"{group} ({left} of {size} left)"
            for group, (left, size) in list(self._shrunk.items())[:MOST_NAMED]
        ]
        more = len(self._shrunk) - len(named)
        rest = f" and {more} more" if more else ""
        return f"groups that lost responses: {', '.join(named)}{rest}"


def _rows(places: list[str]) -> str:
    """How many rows, and where the first of them are if they are in one file.

    Example:
        >>> _rows(["r.jsonl:2", "r.jsonl:7"]), _rows(["r.jsonl:2"])
        ('2 rows: 2, 7', '1 row')
    """
    files = {place.rpartition(":")[0] for place in places}
    if len(places) == 1 or len(files) > 1:
        return counted(len(places), "row")
    lines = [place.rpartition(":")[2] for place in places[:MOST_NAMED]]
    more = ", ..." if len(places) > MOST_NAMED else ""
    return f"{counted(len(places), 'row')}: {', '.join(lines)}{more}"
