"""Collects what is wrong with the rows of a file."""

from __future__ import annotations

from stepcredit.errors import RolloutError


class Faults:
    """The first fault of a file by line, and how many there are.

    A fault that is only found by trying whole groups is counted once per group.

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
        self._groups = 0
        self._first: tuple[int, RolloutError, bool] | None = None

    def add(
        self, line: int, error: RolloutError, *, breaks_row: bool = False, of_group: bool = False
    ) -> None:
        """Add a fault.

        Args:
            line: where it is.
            error: what is wrong.
            breaks_row: whether the row or its group can't be used at all.
            of_group: whether it is the first of a group, whose other rows were not counted.
        """
        self.broken_rows |= breaks_row
        self.count += 1
        self._groups += of_group
        if self._first is None or line < self._first[0]:
            self._first = (line, error, of_group)

    def throw(self, path: str) -> None:
        """Raise the first fault, if there is one.

        Raises:
            RowError: names the file, the line and how many more faults there are.
        """
        if self._first is not None:
            line, error, of_group = self._first
            groups = self._groups - of_group
            raise error.at_line(path, line, more=self.count - 1 - groups, groups=groups)
