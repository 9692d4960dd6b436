"""The command line in this process, and in one of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command_server import Command
from typer.testing import CliRunner

from stepcredit.cli import app


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_here(*arguments: str, stdin: bytes = b"") -> Ended:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run_here


@pytest.fixture
def start_process(tmp_path: Path) -> Run:
    """Runs a command in a new process of Python, in an empty folder."""

    def run_there(*arguments: str, prefix: tuple[str, ...] = ()) -> Ended:
        command = [*prefix, sys.executable, "-m", "stepcredit", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True)
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run_there


@dataclass(frozen=True)
class CommandServer:
    """The process of `command_server.py`."""

    process: subprocess.Popen[str]

    def start(self, command: Command) -> int:
        """Start a command; the id of its process. The next one starts after `exit_code`."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.line())
        self.process.stdin.flush()
        return self._answer()

    def exit_code(self) -> int:
        """Wait for the end of the command that was started; its exit code."""
        return self._answer()

    def _answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


@pytest.fixture(scope="session")
def command_server() -> Iterator[CommandServer]:
    """One for all tests of this pytest process."""
    words = [sys.executable, str(Path(__file__).with_name("command_server.py"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=environment(), stdin=pipe, stdout=pipe, text=True) as process:
        yield CommandServer(process)
        process.stdin.close()


@dataclass
class Forked:
    """A command in a process that was forked from one that has imported torch."""

    server: CommandServer
    process: int
    output: Path
    errors: Path
    is_waited_for: bool = False

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        with suppress(ProcessLookupError):
            os.kill(self.process, 0)
            return True
        return False

    def end(self) -> Ended:
        """Wait for its end."""
        self.is_waited_for, code = True, self.server.exit_code()
        return Ended(code, *(path.read_bytes().decode() for path in (self.output, self.errors)))


@pytest.fixture
def fork_process(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, command_server: CommandServer
) -> Iterator[Callable[..., Forked]]:
    """Starts a command in a process of its own, in an empty folder; one at a time.

    `streams` opens a descriptor on a file (for appending, but 0), or closes it (None).
    """
    own = tmp_path_factory.mktemp("streams")
    begun: list[Forked] = []

    def fork_there(
        *arguments: str,
        streams: Mapping[int, str | None] | None = None,
        variables: Mapping[str, str] | None = None,
        largest_file: int = -1,
    ) -> Forked:
        caught = own / "output", own / "errors"
        for path in caught:
            path.write_bytes(b"")
        usual = {0: os.devnull, 1: str(caught[0]), 2: str(caught[1])}
        command = Command(
            list(arguments),
            str(tmp_path),
            environment() | dict(variables or {}),
            usual | dict(streams or {}),
            largest_file,
        )
        begun.append(Forked(command_server, command_server.start(command), *caught))
        return begun[-1]

    yield fork_there
    for forked in begun:
        if not forked.is_waited_for:  # the test has failed before
            with suppress(ProcessLookupError):
                os.kill(forked.process, signal.SIGKILL)
            forked.end()


@pytest.fixture
def run_process(fork_process: Callable[..., Forked]) -> Run:
    """Runs a command as `fork_process` starts it; `start_process` starts Python anew."""
    return lambda *arguments, **begin: fork_process(*arguments, **begin).end()


def environment() -> dict[str, str]:
    """This process's environment, where the package is importable, with one thread.

    Streams are buffered, as they are for a user: what is left at the end decides the exit code.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """Rows as JSON lines; the file's name."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
