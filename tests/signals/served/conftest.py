"""The server of `server.py` in a process of its own, and responses to score by it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

SCRIPT = Path(__file__).with_name("server.py")


@dataclass(frozen=True)
class Misbehaving:
    """A running server."""

    url: str

    def plan(self, **plan: Any) -> None:
        """Set what it does; what it counted is forgotten."""
        body = json.dumps(plan).encode()
        urlopen(Request(f"{self.url}/plan", data=body, method="POST")).read()

    def count(self) -> dict[str, Any]:
        """What it counted since."""
        found: dict[str, Any] = json.loads(urlopen(f"{self.url}/count").read())
        return found


@contextmanager
def running_server(port: int = 0) -> Iterator[Misbehaving]:
    """A server in a process of its own, on a free port or the one given."""
    arguments = [sys.executable, str(SCRIPT), str(port)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        yield Misbehaving(f"http://127.0.0.1:{int(it.stdout.readline())}")
        it.kill()


@pytest.fixture(scope="session")
def process() -> Iterator[Misbehaving]:
    """One server for all tests."""
    with running_server() as one:
        yield one


@pytest.fixture(scope="session")
def second_process() -> Iterator[Misbehaving]:
    """Another one."""
    with running_server() as two:
        yield two


@pytest.fixture
def second(second_process: Misbehaving, server: Misbehaving) -> Misbehaving:
    """A second server, well-behaved again."""
    second_process.plan()
    return second_process


@pytest.fixture
def server(process: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> Misbehaving:
    """That server, well-behaved again."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    process.plan()
    return process
