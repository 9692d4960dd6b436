"""The server of `server.py` in a process of its own, and responses to score by it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def process() -> Iterator[Misbehaving]:
    """One server for all tests."""
    with subprocess.Popen([sys.executable, str(SCRIPT)], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None
        yield Misbehaving(f"http://127.0.0.1:{int(it.stdout.readline())}")
        it.kill()


@pytest.fixture
def server(process: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> Misbehaving:
    """That server, well-behaved again."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    process.plan()
    return process
