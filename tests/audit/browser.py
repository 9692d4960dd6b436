"""A Chromium of the system for tests of pages; they are skipped without one or playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
NEEDS_BROWSER = pytest.mark.skipif(not PROGRAM, reason="there is no Chromium on this machine")
SIZES = {"desk": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def opened_page(browser: Any, file: Path, **settings: Any) -> Iterator[Any]:
    """A page, opened from disk; at the end nothing has failed, left, or run."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if _leaves(request.url) else None)
    page.goto(file.as_uri())
    yield page
    assert wrong == []
    assert page.evaluate("window.hit") is None
    context.close()


def _leaves(url: str) -> bool:
    return not url.startswith(("file:", "data:"))


def fits(page: Any, width: int) -> bool:
    """Whether nothing is wider than the window, with all parts of the page open."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    return bool(page.evaluate("document.documentElement.scrollWidth") <= width)


def serious_faults(page: Any) -> list[str]:
    """What axe finds that keeps people from reading the page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    violations = axe.Axe().run(page).response["violations"]
    return [each["id"] for each in violations if each["impact"] in ("serious", "critical")]
