"""The audit's report as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stepcredit.audit.attack.attack_check import ATTACK_CHECK
from stepcredit.audit.audit_report import AuditReport
from stepcredit.audit.checks import payment as payment_check
from stepcredit.audit.finding import AuditFigure
from stepcredit.audit.interval_plots import interval_plots
from stepcredit.audit.page_drawing import Picture
from stepcredit.audit.page_rows import MOST_SHOWN, PageRows, escaped_json, page_rows
from stepcredit.audit.series_pictures import series_pictures
from stepcredit.audit.shown_figures import (
    check_title,
    shown_interval,
    visible_text,
    visible_values,
)
from stepcredit.credit.torch_threads import threads
from stepcredit.data.rules import counted
from stepcredit.html_pages import page_environment

TEMPLATES = Path(__file__).with_name("templates")
SCRIPTS = (
    *("page_unpacking.js", "page_values.js", "page_response.js"),
    *("audit_page.js", "page_plots.js"),
)
"""The parts of the page's script, in their order."""
PAGE_BYTES = 5_000_000
"""The page's size at most, unless what is not of single responses is larger alone."""
LINKS_BYTES = 100_000
"""Of them, what is kept for links to the responses and for the scales of colours."""
EXTREMES_LINKED = 5
"""Links to the best paid responses of a method, and to the worst paid."""
PLACES_LINKED = 8
"""Links to responses below a finding."""
PaidRows = tuple[str, list[Mapping[str, Any]], list[Mapping[str, Any]]]
"""A method, and the responses that it pays best and worst."""
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
    view = visible_values(report.as_json())
    fixed = {
        "report": view,
        "pictures": _pictures(report, view),
        "attack": _attack_table(view),
        **_page_files(),
    }
    rest = len(_rendered(fixed, PageRows([], []), view).encode()) + LINKS_BYTES
    with threads(1):
        shown = page_rows(report, PAGE_BYTES - rest)
    return _rendered(fixed, shown, view)


def _rendered(fixed: Mapping[str, Any], shown: PageRows, view: Mapping[str, Any]) -> str:
    """The page with some responses."""
    titles = [finding["sentence"] for finding in view["findings"]]
    browser = {
        "methods": list(view["methods"]),
        "findings": _cited_rows(view["findings"], titles),
        "layers": shown.layers,
        "rows": shown.rows,
    }
    filters: dict[str, Callable[..., Any]] = {
        "counted": counted,
        "severity": SEVERITY_WORDS.__getitem__,
        "interval": lambda f: shown_interval(f["value"], f["low"], f["high"]),
        "title": check_title,
    }
    template = page_environment(TEMPLATES, filters).get_template("audit_page.html.j2")
    text: str = template.render(
        **fixed,
        shown=len(shown.rows),
        most_shown=MOST_SHOWN,
        linked={row["row"] for row in shown.rows},
        places_linked=PLACES_LINKED,
        paid=_best_and_worst(shown.rows, view["methods"]),
        data=escaped_json(browser),
    )
    return text


def _page_files() -> dict[str, str]:
    """The page's script with its hash, and its style."""
    parts = "\n".join((TEMPLATES / name).read_text() for name in SCRIPTS)
    script = f'"use strict";\n(() => {{\n{parts}}})();'
    style = (TEMPLATES / "audit_page.css").read_text()
    return {"script": script, "script_hash": _hash(script), "style": style}


def _attack_table(view: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What the edits earned; None without an attack."""
    check = view["checks"].get(ATTACK_CHECK)
    series = {} if check is None else check["series"]
    return series if "earnings" in series else None


def _cited_rows(
    findings: Sequence[Mapping[str, Any]], titles: Sequence[str]
) -> list[dict[str, Any]]:
    cited = [sorted({place["row"] for place in finding["places"]}) for finding in findings]
    return [{"title": title, "rows": rows} for title, rows in zip(titles, cited, strict=True)]


def _pictures(report: AuditReport, view: Mapping[str, Any]) -> dict[str, list[Picture]]:
    """By check, the pictures of its series, then those of its other figures with intervals."""
    responses = view["counts"]["responses"]
    found = dict[str, list[Picture]]()
    for name, result in report.results.items():
        shown = visible_text(name)
        series = view["checks"][shown]["series"]
        figures = [figure for figure in result.figures if not _is_pictured(name, figure)]
        found[shown] = [*series_pictures(name, series, responses), *interval_plots(figures)]
    return found


def _is_pictured(check: str, figure: AuditFigure) -> bool:
    """Whether a picture of the check's series shows the figure too."""
    payment = check == payment_check.NAME and figure.name.startswith("mean advantage of ")
    return payment or check == ATTACK_CHECK


def _best_and_worst(rows: Sequence[Mapping[str, Any]], methods: Iterable[str]) -> list[PaidRows]:
    """By method, the shown responses that are paid best and worst."""
    found = []
    for name in methods:
        ordered = sorted(rows, key=lambda row: -row["means"][name])
        worst = ordered[: -EXTREMES_LINKED - 1 : -1]
        found.append((name, ordered[:EXTREMES_LINKED], worst))
    return found


def _hash(script: str) -> str:
    """What the content security policy calls the script by."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
