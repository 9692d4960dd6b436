"""The audit's report as one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepcredit.audit.attack.attack_check import ATTACK_CHECK
from stepcredit.audit.audit_report import AuditReport
from stepcredit.audit.checks import payment as payment_check
from stepcredit.audit.finding import AuditFigure
from stepcredit.audit.interval_plots import interval_plots
from stepcredit.audit.page_drawing import Picture
from stepcredit.audit.page_parts import page_files, page_template
from stepcredit.audit.page_rows import MOST_SHOWN, PageRows, escaped_json, page_rows
from stepcredit.audit.run_page import run_view
from stepcredit.audit.run_report import RunReport
from stepcredit.audit.series_pictures import series_pictures
from stepcredit.audit.shown_figures import visible_text, visible_values
from stepcredit.credit.torch_threads import threads

SCRIPTS = (
    *("page_unpacking.js", "page_values.js", "page_response.js"),
    *("audit_page.js", "page_plots.js", "page_reload.js"),
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


def audit_page(report: AuditReport | RunReport, *, is_growing: bool = False) -> str:
    """The page: the verdict, every finding with its rows, the responses, all figures.

    All that comes from the data is escaped, and shown as text: markup in a response does nothing,
    and characters without a shape are shown by their number. A content security policy lets only
    the page's own script run, and lets nothing be loaded.

    Args:
        report: the report of a file; of a run, its last step is shown whole, below the figures and
            findings over all steps.
        is_growing: whether the page will be written again; it then offers to reload itself.

    Returns:
        HTML, at most 5 MB for responses of any length: the responses shown are a sample, and the
        page says how many; every figure is measured on all.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
    """
    from stepcredit.requires import require

    require("report", "jinja2", "matplotlib")
    last = report.last if isinstance(report, RunReport) else report
    view = visible_values(last.as_json())
    fixed = {
        "run": run_view(report) if isinstance(report, RunReport) else None,
        "is_growing": is_growing,
        "report": view,
        "method_texts": visible_values(list(last.method_texts.values())),
        "right_text": last.right_text,
        "pictures": _pictures(last, view),
        "attack": _attack_table(view),
        **page_files(SCRIPTS),
    }
    rest = len(_rendered(fixed, PageRows([], []), view).encode()) + LINKS_BYTES
    with threads(1):
        shown = page_rows(last, PAGE_BYTES - rest)
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
    text: str = page_template("audit_page.html.j2").render(
        **fixed,
        shown=len(shown.rows),
        most_shown=MOST_SHOWN,
        linked={row["row"] for row in shown.rows},
        places_linked=PLACES_LINKED,
        paid=_best_and_worst(shown.rows, view["methods"]),
        data=escaped_json(browser),
    )
    return text


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
