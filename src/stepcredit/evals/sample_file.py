"""The file of samples: rollouts that are appended as they come, so that a killed run goes on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import IO, Any, Self

import orjson

from stepcredit.data.files.jsonl import file_errors
from stepcredit.data.files.rows import check_row
from stepcredit.errors import FileError, RolloutError, RowError, SettingError
from stepcredit.evals.problems import EvalProblem

SUFFIX = ".jsonl"
OTHER_FILE = "name another file with -o"


class SampleFile:
    """A `.jsonl` file of rollouts to which one run at a time adds samples.

    Each sample is one line that is on the disk before the next batch is sampled. After a kill, a
    line that was not written to its end is cut off when the file is opened again.

    Args:
        path: the file; it is made if it does not exist.
        problems: those that this run samples; rows of other groups are kept and not looked at.
        settings: for each task's name, what its samples depend on. Rows of these tasks must have
            been sampled with the same.

    Raises:
        SettingError: the name does not end in `.jsonl`.
        FileError: the file can't be written, or another run is writing it.
        RowError: a row is not a sample of this run's model, settings and problems.

    Example:
        >>> import tempfile
        >>> from stepcredit.evals.eval_tasks import EVAL_TASKS
        >>> problem = EvalProblem("gsm8k/0", EVAL_TASKS["gsm8k"], "2 + 2?", {"answer": "4"})
        >>> row = {"group": "gsm8k/0", "sample": 0, "prompt": "2 + 2?", "tokens": ["4"]}
        >>> path, settings = Path(tempfile.mkdtemp()) / "samples.jsonl", {"gsm8k": {"model": "m"}}
        >>> with SampleFile(path, [problem], settings) as file:
        ...     file.append([row | {"settings": {"model": "m"}}])
        >>> with SampleFile(path, [problem], settings) as file:
        ...     file.known
        {('gsm8k/0', 0)}
    """

    def __init__(
        self,
        path: str | Path,
        problems: Iterable[EvalProblem],
        settings: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.path = Path(path)
        if self.path.suffix != SUFFIX:
            raise SettingError(f"expected a name that ends in {SUFFIX}", field=str(path))
        self.known: set[tuple[str, int]] = set()
        self._settings = settings
        self._problems = {problem.group: problem for problem in problems}
        with file_errors(str(path)):
            self._file: IO[bytes] = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "rb+")
        try:
            self._prepare()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write samples; when it returns, they are on the disk.

        Raises:
            RolloutError: a row that breaks a rule of the file format.
            FileError: the file can't be written.
        """
        made = [dict(row) for row in rows]
        for row in made:
            check_row(row)
        lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in made)
        with file_errors(str(self.path)):
            self._write(lines)
            os.fsync(self._file.fileno())
        self.known |= {(row["group"], row["sample"]) for row in made}

    def _write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _prepare(self) -> None:
        """Lock the file, read the samples that it has, and cut off a line without an end."""
        with file_errors(str(self.path)):
            _lock(self._file, self.path)
            end, line = 0, 0
            with self.path.open("rb") as rows:
                for line, raw in enumerate(rows, start=1):
                    if raw.endswith(b"\n"):
                        self._read(raw, line)
                        end += len(raw)
            self._file.truncate(end)
            self._file.seek(end)

    def _read(self, raw: bytes, line: int) -> None:
        try:
            row = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            reason = f"is not JSON ({error}); {OTHER_FILE}"
            raise RowError(reason, path=str(self.path), line=line) from None
        try:
            self._take(row)
        except RolloutError as error:
            raise error.at_line(str(self.path), line) from None

    def _take(self, row: Any) -> None:
        """Note a sample of the file; refuse one that this run would not have drawn."""
        if not isinstance(row, dict) or not {"group", "sample", "settings"} <= row.keys():
            raise RolloutError(f"is no sample of `stepcredit eval`; {OTHER_FILE}")
        key = (row["group"], row["sample"])
        if key in self.known:
            raise RolloutError(f"{key[0]} has its sample {key[1]} twice", field="sample")
        self.known.add(key)
        self._check_settings(str(key[0]).partition("/")[0], row["settings"])
        problem = self._problems.get(str(key[0]))
        if problem is not None and row.get("prompt") != problem.prompt:
            raise RolloutError(f"another problem than this run's {key[0]}", field="prompt")

    def _check_settings(self, task: str, found: Mapping[str, Any]) -> None:
        expected = self._settings.get(task, found)
        for name in expected.keys() | found.keys():
            if found.get(name) != expected.get(name):
                here, there = (str(each.get(name))[:60] for each in (found, expected))
                reason = f"was sampled with {here!r}, this run has {there!r}; {OTHER_FILE}"
                raise RolloutError(reason, field=name)


def _lock(file: IO[bytes], path: Path) -> None:
    """Take the file for this process until it ends or closes the file.

    Raises:
        FileError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on Windows
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileError(f"{path}: another run is writing it") from None
