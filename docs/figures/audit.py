"""Photograph the page of an audit: `python docs/figures/audit.py` writes docs/figures/audit.png.

It audits the saved run of docs/audit.md and opens line 22, a wrong answer with two filler lines,
which `pass` puts first in its group and `pure` last. Another file, and another of its lines, can be
named: `audit.py rollouts.jsonl 12`. It needs the extra `report`, `pip install playwright`, and a
Chromium of the system.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from stepcredit.audit.audit_page import audit_page
from stepcredit.audit.audit_report import audit
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.cli.audit import DEFAULT_METHODS, audited_methods

HERE = Path(__file__).resolve().parent
SAVED = HERE.parents[1] / "tests" / "audit" / "example_rollouts.jsonl.gz"
SETTINGS = ["weights=[1,1,0.3]", "clip=5"]
STEP = 3
"""The step whose stages are shown: the fourth, a filler line."""
SIZE = {"width": 1120, "height": 640}


def main() -> None:
    source = sys.argv[1] if len(sys.argv) > 1 else SAVED
    line = int(sys.argv[2]) if len(sys.argv) > 2 else 22
    batch = LoggedBatch.read(source)
    row = next(at for at, each in enumerate(batch.rows) if each.line == line)
    report = audit(batch, audited_methods(list(DEFAULT_METHODS), SETTINGS))
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "report.html"
        path.write_text(audit_page(report))
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(f"{path.as_uri()}#r={row}&s={STEP}")
        page.wait_for_selector("#inspector:not([hidden])")
        page.evaluate("document.getElementById('browser').scrollIntoView()")
        page.screenshot(path=HERE / "audit.png")
        browser.close()


if __name__ == "__main__":
    main()
