"""Fixtures every room's tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"

# a shell starts what runs in its background with these ignored, and the commands under test would
# inherit it
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of test vectors and data rows beside the checkout; the test skips without it."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.name} beside the checkout: test vectors are not here")
    return SHARED


@pytest.fixture
def own_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods, chunkers and splitter of `tests/own_methods.py`, registered for one test."""
    from tests.own_methods import register_own

    register_own(monkeypatch)
