"""A server's process: started, watched until it is healthy, and ended with all its children."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Self

import httpx

from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import SignalError
from stepcredit.prm.serving.ports import refuse_other_listeners, refuse_used_port
from stepcredit.signals.served.secrets import Redactor

KEPT_LINES = 40
"""Lines of its output that are kept."""
ASK_EVERY = 0.5
"""Seconds between two questions whether it is healthy."""
PATIENCE = 20.0
"""Seconds that it has to end by itself."""
LAST_LINES = 2.0
"""Seconds to read what a process wrote before it ended."""
Report = Callable[[float, str], None]


def is_healthy(url: str) -> bool:
    """Whether a server on this machine answers its `/health` with 200."""
    try:
        return httpx.get(f"{url}/health", timeout=5.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


class ServerProcess:
    """A server that this process started; leaving the `with` block ends it.

    Args:
        arguments: the command.
        url: the address at which it will answer `/health`.
        host: the address at which it listens; None: all of this machine's.
        port: at which it listens.
        log: a file for its whole output; None: only the last lines are kept.
        secrets: texts that are hidden in its output, in the log too.

    Raises:
        SignalError: the port is in use, or there is no such program.
        FileError: the log can't be written.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        url: str,
        *,
        host: str | None,
        port: int,
        log: Path | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self.arguments, self.url, self.log = list(arguments), url, log
        self.host, self.port = host, port
        self._redactors = [Redactor(secret) for secret in secrets]
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.process: subprocess.Popen[str] | None = None
        self._reader: Thread | None = None

    def __enter__(self) -> Self:
        refuse_used_port(self.host, self.port, self.url)
        file: IO[str] | None = None
        if self.log is not None:
            with file_errors(str(self.log)):
                file = self.log.open("w", encoding="utf-8")
        try:
            self.process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            if file is not None:
                file.close()
            program = self.arguments[0]
            reason = f"can't be started: {error.strerror}"
            raise SignalError(
                f"{reason}; is its environment active? `pip install vllm` installs it",
                place=program,
            ) from None
        try:
            self._reader = Thread(target=self._read, args=(file,), daemon=True)
            self._reader.start()
        except BaseException:  # a stop signal too: nothing else would end the server
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _read(self, file: IO[str] | None) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            for redactor in self._redactors:
                line = redactor.hide(line)
            if line.strip():
                self.lines.append(line.rstrip())
            if file is not None:
                file.write(line)
                file.flush()
        if file is not None:
            file.close()

    @property
    def last_line(self) -> str:
        """What it wrote last."""
        return self.lines[-1] if self.lines else ""

    def wait_until_healthy(self, limit: float, report: Report) -> float:
        """Wait for its health; returns the seconds that it took.

        Args:
            limit: seconds at most.
            report: called again and again with the seconds so far and its last line.

        Raises:
            SignalError: it ended, was not healthy in time, or another process listens at its port.
        """
        start = time.monotonic()
        while True:
            seconds = time.monotonic() - start
            self._refuse_ended("before it was healthy")
            if is_healthy(self.url):
                self._refuse_another()
                return seconds
            if seconds >= limit:
                reason = f"not healthy within {limit:g} s{self._said()}"
                raise SignalError(reason, place=self.url)
            report(seconds, self.last_line)
            time.sleep(min(ASK_EVERY, max(0.0, limit - seconds)))

    def wait(self) -> None:
        """Wait until it ends.

        Raises:
            SignalError: it ended with another code than 0.
        """
        assert self.process is not None
        self.process.wait()
        self._refuse_ended("")

    def _refuse_another(self) -> None:
        """Refuse health that may be another server's."""
        self._refuse_ended("when its health was asked for")
        assert self.process is not None
        refuse_other_listeners(self.process.pid, self.host, self.port, self.url)

    def _refuse_ended(self, when: str) -> None:
        assert self.process is not None
        code = self.process.poll()
        if code is None or (code == 0 and not when):
            return
        self._signal(signal.SIGKILL)  # its children hold its output open
        if self._reader is not None:
            self._reader.join(LAST_LINES)
        how = f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
        reason = " ".join(filter(None, [how, when]))
        raise SignalError(f"{reason}{self._said()}", place=self.arguments[0])

    def _said(self) -> str:
        return f"; its last line: {self.last_line}" if self.lines else "; it wrote nothing"

    def stop(self) -> None:
        """End it and all processes that it started; if interrupted, kill them at once."""
        if self.process is None:
            return
        try:
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
        finally:
            self._signal(signal.SIGKILL)  # also children that outlived it
            self.process.wait()
        if self._reader is not None:
            self._reader.join(LAST_LINES)
        self.process = None

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
