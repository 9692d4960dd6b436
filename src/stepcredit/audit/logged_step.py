"""A step of a training run, not yet read: its name, its place, and whether more may come."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.data.files.jsonl import file_errors, parse
from stepcredit.errors import RolloutError

QUIET_SECONDS = 10.0
"""A file that was not written to for so long is taken to be whole."""
StepState = Literal["whole", "open", "half-written"]


@dataclass(frozen=True, order=True)
class StepName:
    """The name of a step.

    Args:
        number: the step's number in the log.
        part: which of several generations of the step, from 0.
        policy: the policy that was trained, where the run trains several; else "".

    Example:
        >>> print(StepName(20), StepName(5, 1), StepName(20, policy="grpo"))
        20 5-1 grpo 20
    """

    number: int
    part: int = 0
    policy: str = ""

    @property
    def label(self) -> str:
        """The step without its policy."""
        return f"{self.number}-{self.part}" if self.part else str(self.number)

    def __str__(self) -> str:
        return f"{self.policy} {self.label}".strip()


@dataclass(frozen=True)
class LoggedStep:
    """A step of a run, not yet read.

    Args:
        name: its name.
        place: the file, and the lines of the file where it holds several steps.
        stamp: another one where the step's rows have changed.
        state: "whole" where a later step has begun, or nothing was written for `QUIET_SECONDS`;
            "half-written" where the last line is no whole JSON; else "open": more rows may come.
        read: reads the rows; None where they repeat the step before, as TRL's tables do.
    """

    name: StepName
    place: str
    stamp: Hashable
    state: StepState
    read: Callable[[], LoggedBatch | None] = field(repr=False, compare=False)


class RunLog(Protocol):
    """A run's rollouts, which may grow."""

    path: str

    def steps(self) -> list[LoggedStep]:
        """All steps that there are now: each policy's in order."""

    def notes(self) -> list[str]:
        """What was accepted but a user should know, one line each."""


def step_state(file: Path, written: float) -> StepState:
    """The state of the step that was written last to a file.

    Args:
        file: the file.
        written: when it was last written to, in seconds since the epoch.
    """
    if is_half_written(file):
        return "half-written"
    return "whole" if time.time() - written > QUIET_SECONDS else "open"


def is_half_written(file: Path) -> bool:
    """Whether the last line of a file of JSON Lines has no end and is no whole JSON.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "1.jsonl"
        >>> for text in ('{"a": 1}\\n{"a"', '{"a": 1}'):
        ...     _ = path.write_text(text)
        ...     print(is_half_written(path))
        True
        False
    """
    if file.suffix != ".jsonl":
        return False
    with file_errors(str(file)), file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - 1))
        if opened.read() in (b"", b"\n"):
            return False
        opened.seek(0)
        last = deque(opened, maxlen=1)
    try:
        parse(last.pop())
    except RolloutError:
        return True
    return False
