"""The page of a study: one self-contained HTML file, or Markdown for the docs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepcredit.html_pages import page_environment
from stepcredit.study import page_words
from stepcredit.study.anchor import REFERENCE, SETTINGS, Anchor
from stepcredit.study.budget import SLICED, study_order
from stepcredit.study.claim_verdicts import NOT_RUN, ClaimVerdict, decide
from stepcredit.study.claims import ClaimsFile
from stepcredit.study.method_standings import (
    BELOW,
    GOOD,
    UNKNOWN,
    MethodStanding,
    method_standings,
)
from stepcredit.study.overview import OverviewRow, overview_rows
from stepcredit.study.page_numbers import NONE, difference, figure, interval, shares
from stepcredit.study.page_pictures import FOLDER, picture_files
from stepcredit.study.page_words import (
    PresetWords,
    comparison_words,
    merged_words,
    preset_words,
)
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_figures import curves_svg, forest_svg
from stepcredit.study.study_tables import ArmRow, CellTable, arm_curves, cell_tables
from stepcredit.study.tuning import TUNING

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class PresetSection:
    """A preset on the page.

    Args:
        name: its name.
        tables: its tables.
        pictures: SVG elements by the table's place in `tables`: curves, then the forest; none on
            the Markdown page, which links to files.
        files: names of the files of pictures that the Markdown page shows.
        command: the command that runs it.
        words: what it asks, and what its arms and signals are.
        overview: one row per method over all signals, for `OVERVIEW`.
    """

    name: str
    tables: tuple[CellTable, ...]
    pictures: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    command: str
    words: PresetWords
    overview: tuple[OverviewRow, ...]


OVERVIEW = "main"
"""The preset that has one row per method, like the papers' first tables."""


def html_page(data: StudyData, claims: ClaimsFile, anchor: Anchor | None = None) -> str:
    """The page as one HTML file without links to others.

    Args:
        data: the runs.
        claims: the claims.
        anchor: runs on a real model, which get a part of their own.
    """
    return _rendered("study_page.html.j2", data, claims, anchor, pictures=True)


def markdown_page(data: StudyData, claims: ClaimsFile, anchor: Anchor | None = None) -> str:
    """The page as Markdown, with links to the files that `page_pictures` has.

    Args:
        data: the runs.
        claims: the claims.
        anchor: runs on a real model, which get a part of their own.
    """
    return _rendered("study_page.md.j2", data, claims, anchor, pictures=False)


def _rendered(
    template: str, data: StudyData, claims: ClaimsFile, anchor: Anchor | None, *, pictures: bool
) -> str:
    filters: dict[str, Callable[..., Any]] = {
        "figure": figure,
        "interval": interval,
        "difference": difference,
        "claim_figure": claim_figure,
        "cost": cost,
        "cell": table_cell,
        "collapses": collapses,
        "compared": comparison_words,
        "shares": shares,
        "code": code_words,
    }
    environment = page_environment(TEMPLATES, filters, escapes=pictures)
    sections = preset_sections(data, pictures=pictures)
    verdicts, standings = decide(claims.claims, data), claim_standings(claims, data)
    return environment.get_template(template).render(
        verdicts=verdicts,
        counts=Counter(found.verdict for found in verdicts),
        ties=sum(found.is_tie for found in verdicts),
        standings=standings,
        standing_presets=" and ".join(f"`{name}`" for name in claims.standing_presets),
        qualified=[standing.label for standing in standings if standing.qualifies],
        words=page_words,
        marks=(GOOD, BELOW, UNKNOWN),
        not_run=NOT_RUN,
        definitions=claims.definitions,
        published=claims.published_by_arm,
        sections=sections,
        arms=merged_words(pair for section in sections for pair in section.words.arms),
        signals=merged_words(pair for section in sections for pair in section.words.signals),
        summary=summary(data),
        origins=run_origins(data),
        folder=FOLDER,
        anchor=anchor,
        anchor_reference=REFERENCE,
        anchor_settings=SETTINGS,
        failures=[run for run in data.runs if run.status == "failed"],
    )


def preset_sections(data: StudyData, *, pictures: bool) -> list[PresetSection]:
    """The presets with finished runs, in the order in which they should run.

    Args:
        data: the runs.
        pictures: whether to draw them.
    """
    order = study_order()
    names = sorted(data.presets, key=lambda n: order.index(n) if n in order else len(order))
    return [section for name in names if (section := _section(name, data, pictures)).tables]


def _section(name: str, data: StudyData, pictures: bool) -> PresetSection:
    tables = cell_tables(name, data)
    shown = tables if pictures else ()
    drawn = [(curves_svg(table, arm_curves(table, data)), forest_svg(table)) for table in shown]
    return PresetSection(
        name,
        tables,
        tuple(drawn),
        picture_files(name, tables),
        preset_command(name),
        preset_words(name),
        tuple(overview_rows(tables)) if name == OVERVIEW else (),
    )


def preset_command(name: str) -> str:
    """The command that runs a preset.

    Example:
        >>> preset_command("main"), preset_command("clip")
        ('stepcredit study run main', 'stepcredit study run clip --slice')
    """
    if name == TUNING:
        return "stepcredit study tune"
    return f"stepcredit study run {name}{' --slice' * (name in SLICED)}"


def summary(data: StudyData) -> dict[str, Any]:
    """Counts of the study as a whole."""
    runs = data.finished
    return {
        "runs": len(runs),
        "cpu_hours": sum(run.costs["cpu_seconds"] for run in runs) / 3600,
        "tokens": sum(run.costs["tokens"] for run in runs),
    }


def claim_standings(claims: ClaimsFile, data: StudyData) -> list[MethodStanding]:
    """How every method compares with the others, by the first claim of the kind "most"."""
    claim = claims.most
    return method_standings(claim, data) if claim else []


def run_origins(data: StudyData) -> list[tuple[Mapping[str, Any], int]]:
    """Each machine and version of the code that made runs, and how many."""
    made = Counter(run.origin for run in data.finished)
    return [(origin, made[origin["id"]]) for origin in data.origins if made[origin["id"]]]


def claim_figure(verdict: ClaimVerdict) -> str:
    """Our figure for a claim: its difference or rate with the interval, or what its note says.

    A difference over a few signals is followed by that on each.
    """
    found, claim = verdict.estimate, verdict.claim
    if found is None:
        return verdict.note or NONE
    if claim.metric == "collapse":
        return f"{interval(found)}; {verdict.note}"
    digits = 1 if claim.metric == "length" else 3
    tasks = {task for (task, _), _ in verdict.by_signal}
    parts = [
        f"{signal if len(tasks) == 1 else f'{task}, {signal}'} {difference(one, digits)}"
        for (task, signal), one in verdict.by_signal
    ]
    return "; ".join([difference(found, digits), *parts])


def collapses(row: ArmRow) -> str:
    """How many runs of an arm collapsed, how many of them by pass@1, and the bound of the rate."""
    if not row.costs:
        return NONE
    kinds = f" (pass@1: {row.lost})" if row.collapsed else ""
    return f"{row.collapsed} of {row.runs}{kinds}, at most {figure(row.upper_bound, 2)}"


def cost(row: ArmRow, name: str) -> str:
    """A cost of an arm, rounded."""
    return f"{dict(row.costs)[name]:,.0f}"


def code_words(text: str) -> Any:
    """Text for HTML, in which `names` are set as code.

    Example:
        >>> code_words("`pass` < 1")
        Markup('<code>pass</code> &lt; 1')
    """
    from markupsafe import Markup, escape

    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def table_cell(text: str) -> str:
    """Text for a cell of a Markdown table.

    Example:
        >>> table_cell("|A| is bounded")
        '\\\\|A\\\\| is bounded'
    """
    return text.replace("|", "\\|").replace("\n", " ")
