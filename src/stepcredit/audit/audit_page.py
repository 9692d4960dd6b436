"""The audit's report as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcredit.audit.audit_report import AuditReport
from stepcredit.audit.interval_plots import interval_plot
from stepcredit.audit.page_rows import MOST_SHOWN, escaped_json, page_rows
from stepcredit.audit.shown_figures import (
    check_title,
    shown_interval,
    visible_text,
    visible_values,
)
from stepcredit.data.rules import counted

TEMPLATES = Path(__file__).with_name("templates")
PLACES_LINKED = 8
"""Links to responses below a finding."""
SEVERITY_WORDS = {"fault": "Fault", "warn": "Warning", "note": "Note"}


def audit_page(report: AuditReport) -> str:
    """The page: the verdict, every finding with its rows, the responses, all figures.

    All that comes from the data is escaped, and shown as text: markup in a response does nothing,
    and characters without a shape are shown by their number. A content security policy lets only
    the page's own script run, and lets nothing be loaded.

    Args:
        report: the report.

    Returns:
        HTML, at most 5 MB for responses of any length: the responses shown are a sample, and the
        page says how many; every figure is measured on all.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    from stepcredit.requires import require

    require("report", "jinja2", "matplotlib")
    shown = page_rows(report)
    view = visible_values(report.as_json())
    titles = [finding["sentence"] for finding in view["findings"]]
    browser = {
        "methods": [visible_text(name) for name in report.given.methods],
        "findings": _cited_rows(view["findings"], titles),
        "rows": shown,
    }
    script = (TEMPLATES / "audit_page.js").read_text()
    return (
        _environment()
        .get_template("audit_page.html.j2")
        .render(
            report=view,
            plots=_plots(report),
            shown=len(shown),
            most_shown=MOST_SHOWN,
            linked={row["row"] for row in shown},
            places_linked=PLACES_LINKED,
            data=escaped_json(browser),
            script=script,
            script_hash=_hash(script),
            style=(TEMPLATES / "audit_page.css").read_text(),
        )
    )


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"counted": counted, "severity": SEVERITY_WORDS.__getitem__}
    environment.filters["interval"] = lambda f: shown_interval(f["value"], f["low"], f["high"])
    environment.filters["title"] = check_title
    return environment


def _cited_rows(
    findings: Sequence[Mapping[str, Any]], titles: Sequence[str]
) -> list[dict[str, Any]]:
    cited = [sorted({place["row"] for place in finding["places"]}) for finding in findings]
    return [{"title": title, "rows": rows} for title, rows in zip(titles, cited, strict=True)]


def _plots(report: AuditReport) -> dict[str, str]:
    return {
        visible_text(name): interval_plot(result.figures, f"figures of the check {name}")
        for name, result in report.results.items()
    }


def _hash(script: str) -> str:
    """What the content security policy calls the script by."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
