"""What all pages of the audit are made with: templates, style, and the script they may run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepcredit.audit.shown_figures import check_title, shown_interval, shown_number
from stepcredit.data.rules import counted
from stepcredit.html_pages import page_environment

TEMPLATES = Path(__file__).with_name("templates")
SEVERITY_WORDS = {"fault": "Fault", "warn": "Warning", "note": "Note"}


def page_template(name: str) -> Any:
    """A template of `templates/`, in which values are escaped, with the filters of all pages."""
    filters: dict[str, Callable[..., Any]] = {
        "counted": counted,
        "severity": SEVERITY_WORDS.__getitem__,
        "number": shown_number,
        "interval": lambda f: shown_interval(f["value"], f["low"], f["high"]),
        "title": check_title,
    }
    return page_environment(TEMPLATES, filters).get_template(name)


def page_files(scripts: Sequence[str]) -> dict[str, str]:
    """The style of all pages, one script of several files, and the script's hash.

    Args:
        scripts: files of `templates/`, in their order.

    Returns:
        {"style": ..., "script": ..., "script_hash": what the content security policy calls it by}.
    """
    parts = "\n".join((TEMPLATES / name).read_text() for name in scripts)
    script = f'"use strict";\n(() => {{\n{parts}}})();'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (TEMPLATES / "audit_page.css").read_text()
    return {"style": style, "script": script, "script_hash": digest}
