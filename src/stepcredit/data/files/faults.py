"""Collects what is wrong with the rows of a file."""

from __future__ import annotations

from stepcredit.errors import RolloutError


class Faults:
    """The first fault of a file by line, and how many there are.

    Example:
        >>> faults = Faults()
        >>> faults.add(4, RolloutError("is NaN", field="outcome"))
        >>> faults.add(3, RolloutError("missing", field="group"))
        >>> faults.throw("r.jsonl")
        Traceback (most recent call last):
        stepcredit.errors.RowError: r.jsonl:3: group: missing (and 1 more fault)
    """

    def __init__(self) -> None:
        self.count = 0
        self.broken_rows = False
        self._first: tuple[int, RolloutError] | None = None

    def add(self, line: int, error: RolloutError, *, breaks_row: bool = False) -> None:
        """Add a fault.

        Args:
            line: where it is.
            error: what is wrong.
            breaks_row: whether the row or its group can't be used at all.
        """
        self.broken_rows |= breaks_row
        self.count += 1
        if self._first is None or line < self._first[0]:
            self._first = (line, error)

    def throw(self, path: str) -> None:
        """Raise the first fault, if there is one.

        Raises:
            RowError: names the file, the line and how many more faults there are.
        """
        if self._first is not None:
            line, error = self._first
            raise error.at_line(path, line, more=self.count - 1)
