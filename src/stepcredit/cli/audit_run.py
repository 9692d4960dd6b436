"""`stepcredit audit` of a run: all its steps once, or each new one as it appears (`--watch`)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

from stepcredit.cli.convert import reading_logs, say_notes
from stepcredit.cli.options import fewer_collections
from stepcredit.cli.output import say
from stepcredit.cli.progress import counting_bar
from stepcredit.cli.standard_streams import Stopped
from stepcredit.errors import FileError, MissingExtra, SettingError, StepCreditError

if TYPE_CHECKING:
    from stepcredit.audit.audit_report import AuditReport
    from stepcredit.audit.diff_report import DiffReport
    from stepcredit.audit.logged_step import LoggedStep, RunLog
    from stepcredit.audit.run_curves import StepAudit
    from stepcredit.audit.run_report import RunFollower, RunReport, UnreadStep

PAUSE_AFTER_WRITING = 9
"""After a page was written, `--watch` writes none for so many times as long as that took."""
Report: TypeAlias = "AuditReport | RunReport | DiffReport"
IDLE_SECONDS = 60.0
"""Without a new step for so long, `--watch` says that it still waits."""


@dataclass(frozen=True)
class Outputs:
    """What a command writes: the paths of `-o` and `--json`, if they are given."""

    page: str | None
    json_file: str | None

    @property
    def is_standard(self) -> bool:
        """Whether one of them is standard output."""
        return "-" in (self.page, self.json_file)

    def write(self, report: Report, *, is_growing: bool = False) -> None:
        """Write the page and the JSON, each whole or not at all.

        Args:
            report: of a file, of a run, or of a difference.
            is_growing: whether the page will be written again; it then offers to reload itself.
        """
        from stepcredit.audit.audit_page import audit_page
        from stepcredit.audit.diff_page import diff_page
        from stepcredit.audit.diff_report import DiffReport
        from stepcredit.data.files.atomic import replacing, write_json

        if self.json_file is not None:
            write_json(self.json_file, report.as_json())
        if self.page is not None:
            if isinstance(report, DiffReport):
                text = diff_page(report)
            else:
                text = audit_page(report, is_growing=is_growing)
            with replacing(self.page) as out:
                out.write(text.encode())


def audit_steps(follower: RunFollower) -> RunReport:
    """Audit all steps that there are now, and print what could not be read.

    Raises:
        FileError: no step could be read.
    """
    with fewer_collections(), reading_logs(), counting_bar("steps") as show:
        steps = follower.due()
        for done, step in enumerate(steps):
            if show is not None:
                show(done, len(steps))
            follower.follow(step)
    report = follower.report()
    say_notes(report.notes)
    for each in report.unread:
        say(f"step {each.name} is left out: {each.reason}")
    return report


@dataclass
class RunWatch:
    """Audits the steps of a run as they appear, until it is interrupted.

    Args:
        path: the folder or file.
        outputs: what is written after each step.
        every: seconds between two looks at the folder.
    """

    path: str
    outputs: Outputs
    every: float
    _said: dict[str, None] = field(default_factory=dict)
    _newest: dict[str, StepAudit] = field(default_factory=dict)
    _active: float = field(default_factory=time.monotonic)
    _next_writing: float = float("-inf")

    def log(self, format: str | None) -> RunLog:
        """The run's steps; waits until there are some in the folder.

        Raises:
            FileError: there is no such file or folder, or the file names no steps.
            RowError: the file holds no rollouts.
        """
        from stepcredit.audit.step_column import StepColumn

        while (found := self._log_now(format)) is None:
            self._say_once(f"{self.path}: no rollouts yet: waiting (Ctrl-C ends)")
            time.sleep(self.every)
        if isinstance(found, StepColumn) and found.is_begun():
            found.steps()  # refuses a file of another kind
        return found

    def _log_now(self, format: str | None) -> RunLog | None:
        """The run's steps; None where the folder holds no rollouts yet."""
        from stepcredit.audit.run_log import run_log
        from stepcredit.audit.step_column import StepColumn

        place = Path(self.path)
        if place.is_file():
            return StepColumn(place, format)
        if not place.is_dir():
            raise FileError(f"{self.path}: no such file or folder")
        try:
            found = run_log(self.path, format)
        except FileError:
            return None
        if found is None:
            raise FileError(f"{self.path}: is a log without steps: --watch follows steps")
        return found

    def run(self, follower: RunFollower) -> RunReport:
        """Watch until Ctrl-C; then write the page once more, and give the whole report.

        Raises:
            FileError: no step was audited.
            Stopped: a stop signal came; the page is complete.
        """
        is_old = False
        try:
            while True:
                is_old |= self._look(follower)
                if is_old and time.monotonic() >= self._next_writing:
                    self._write(follower.report())
                    is_old = False
                time.sleep(self.every)
        except KeyboardInterrupt as stop:
            report = follower.report()
            self.outputs.write(report)
            if isinstance(stop, Stopped):
                raise
            return report

    def _write(self, report: RunReport) -> None:
        """Write what there is; then not for a while, so that writing takes little of the time."""
        began = time.monotonic()
        self.outputs.write(report, is_growing=True)
        ended = time.monotonic()
        self._next_writing = ended + PAUSE_AFTER_WRITING * (ended - began)

    def _look(self, follower: RunFollower) -> bool:
        """Audit the steps that are new; whether the report has changed and has a step."""
        try:
            due = follower.due(waits=True)
        except (SettingError, MissingExtra):
            raise
        except StepCreditError as error:
            self._say_once(f"{error}: waiting")
            return False
        for step in due:
            with fewer_collections(), reading_logs():
                found = follower.follow(step)
            self._say_step(step, found)
        if due:
            self._active = time.monotonic()
        elif time.monotonic() - self._active > IDLE_SECONDS:
            self._say_once(self._idle_line())
        return bool(due) and bool(self._newest)

    def _idle_line(self) -> str:
        newest = list(self._newest.values())[-1:]
        since = f" since step {newest[0].name}" if newest else ""
        return f"{self.path}: nothing new{since}: still waiting (Ctrl-C ends)"

    def _say_step(self, step: LoggedStep, found: StepAudit | UnreadStep | None) -> None:
        from stepcredit.audit.run_curves import StepAudit
        from stepcredit.cli.run_summary import step_line

        if isinstance(found, StepAudit):
            typer.echo(step_line(found, self._newest.get(step.name.policy)))
            self._newest[step.name.policy] = found
        elif found is None:
            say(f"step {step.name} repeats the step before it: left out")
        else:
            say(f"step {step.name} is left out: {found.reason}")

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            self._said[line] = None
            say(line)
