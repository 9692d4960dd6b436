"""Runs commands in processes forked from this one, which has imported torch and every command.

A start of Python that imports torch takes seconds, a fork of such a process takes none. Requests
and answers are lines of JSON on the standard streams: a request holds what `Command` holds, and its
answers are the child's process id at once, and its exit code when it has ended (negative: the
signal that ended it).
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import resource
import runpy
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, TextIO

HIGHEST = 256
"""Above every file descriptor of this process."""
UNWRITTEN = 120
"""The exit code of Python where a standard stream could not be written at the end."""


@dataclass(frozen=True)
class Command:
    """A command, and what its process begins with.

    Args:
        arguments: those of `stepcredit`.
        folder: the working folder.
        variables: the whole environment.
        streams: {descriptor: the file it is opened on, or None for a closed one}.
        largest_file: bytes that no file may exceed; -1 is any number.
    """

    arguments: list[str]
    folder: str
    variables: dict[str, str]
    streams: dict[int, str | None] = field(default_factory=dict)
    largest_file: int = -1

    def line(self) -> str:
        """The request."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def of(cls, line: str) -> Command:
        """The command of a request."""
        found = json.loads(line)
        streams = {int(handle): path for handle, path in found.pop("streams").items()}
        return cls(**found, streams=streams)


def import_commands() -> None:
    """Import what the commands import when they run."""
    from stepcredit.cli import COMMANDS
    from stepcredit.cli.lazy_loading import loaded_command

    for commands in COMMANDS.values():
        for name, (target, _) in commands.items():
            loaded_command(name, f"stepcredit.cli.{target}")
    import stepcredit as sc

    sc.methods()
    sc.signal("equations")
    sc.reward("format", template="boxed")
    with suppress(ImportError):
        import pyarrow.parquet  # noqa: F401


def begin(command: Command) -> None:
    """Make this forked process as a new one of Python would be."""
    os.closerange(3, HIGHEST)
    os.chdir(command.folder)
    os.environ.clear()
    os.environ.update(command.variables)
    tempfile.tempdir = None
    for handle, path in command.streams.items():
        if path is not None:
            mode = os.O_WRONLY | os.O_CREAT | os.O_APPEND if handle else os.O_RDONLY
            opened = os.open(path, mode | os.O_NOCTTY)
            if opened != handle:
                os.dup2(opened, handle)
                os.close(opened)
    for handle, path in command.streams.items():
        if path is None:
            os.close(handle)
    sys.stdin, sys.stdout, sys.stderr = (standard_stream(handle) for handle in range(3))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (command.largest_file, hard))
    sys.argv = ["stepcredit", *command.arguments]


def standard_stream(handle: int) -> Any:
    """A standard stream as Python opens it; None where it is closed."""
    try:
        os.fstat(handle)
    except OSError:
        return None
    if handle == 0:
        return open(0, closefd=False)
    errors = "backslashreplace" if handle == 2 else "strict"
    return open(handle, "w", errors=errors, buffering=1 if handle == 2 else -1, closefd=False)


def serve(requests: TextIO, answers: TextIO) -> Command | None:
    """Fork for each request; return its command in the child, and None at the end here."""
    for line in requests:
        child = os.fork()
        if child == 0:
            return Command.of(line)
        print(child, file=answers, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    return None


def main() -> None:
    """Import, serve, and in a child run the command as `python -m stepcredit` does."""
    requests, answers = (
        os.fdopen(os.dup(0), closefd=False),
        os.fdopen(os.dup(1), "w", closefd=False),
    )
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    import_commands()
    gc.freeze()
    command = serve(requests, answers)
    if command is None:
        return
    begin(command)
    try:
        runpy.run_module("stepcredit", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        end(ended.code)


def end(code: Any) -> NoReturn:
    """End this forked process as Python would, but for freeing the modules, which takes long."""
    assert isinstance(code, int)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            code = UNWRITTEN
    os._exit(code)


if __name__ == "__main__":
    main()
