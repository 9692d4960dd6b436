"""The page of a study: one self-contained HTML file, or Markdown for the docs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from stepcredit.html_pages import page_environment
from stepcredit.study.budget import SLICED, study_order
from stepcredit.study.claim_verdicts import ClaimVerdict, decide
from stepcredit.study.claims import ClaimsFile
from stepcredit.study.overview import OverviewRow, overview_rows
from stepcredit.study.page_pictures import FOLDER, picture_files
from stepcredit.study.page_words import (
    PresetWords,
    comparison_words,
    merged_words,
    preset_words,
)
from stepcredit.study.rule_standings import RuleStanding, rule_standings
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_figures import curves_svg, forest_svg
from stepcredit.study.study_statistics import Estimate
from stepcredit.study.study_tables import ArmRow, CellTable, arm_curves, cell_tables
from stepcredit.study.tuning import TUNING

TEMPLATES = Path(__file__).with_name("templates")
NONE = "–"
"""What stands where there is no figure."""


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


def html_page(data: StudyData, claims: ClaimsFile) -> str:
    """The page as one HTML file without links to others.

    Args:
        data: the runs.
        claims: the claims.
    """
    return _rendered("study_page.html.j2", data, claims, pictures=True)


def markdown_page(data: StudyData, claims: ClaimsFile) -> str:
    """The page as Markdown, with links to the files that `page_pictures` has.

    Args:
        data: the runs.
        claims: the claims.
    """
    return _rendered("study_page.md.j2", data, claims, pictures=False)


def _rendered(template: str, data: StudyData, claims: ClaimsFile, *, pictures: bool) -> str:
    filters: dict[str, Callable[..., Any]] = {
        "figure": figure,
        "interval": interval,
        "difference": difference,
        "claim_figure": claim_figure,
        "cost": cost,
        "cell": table_cell,
        "compared": comparison_words,
        "pair": pair_of_shares,
        "code": code_words,
    }
    environment = page_environment(TEMPLATES, filters, escapes=pictures)
    sections = preset_sections(data, pictures=pictures)
    verdicts = decide(claims.claims, data)
    return environment.get_template(template).render(
        verdicts=verdicts,
        counts=Counter(found.verdict for found in verdicts),
        standings=method_standings(claims, data),
        definitions=claims.definitions,
        published=claims.published,
        sections=sections,
        arms=merged_words(pair for section in sections for pair in section.words.arms),
        signals=merged_words(pair for section in sections for pair in section.words.signals),
        summary=summary(data),
        origins=run_origins(data),
        folder=FOLDER,
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
        "seeds": sorted({run.seed for run in runs}),
    }


def method_standings(claims: ClaimsFile, data: StudyData) -> list[RuleStanding]:
    """How every method stands beside the others, by the first claim of the kind "most"."""
    found = (claim for claim in claims.claims if claim.kind == "most")
    claim = next(found, None)
    return rule_standings(claim, data) if claim else []


def run_origins(data: StudyData) -> list[tuple[Mapping[str, Any], int]]:
    """Each machine and version of the code that made runs, and how many."""
    made = Counter(run.origin for run in data.finished)
    return [(origin, made[origin["id"]]) for origin in data.origins if made[origin["id"]]]


def figure(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits, or `NONE`.

    Example:
        >>> figure(0.52), figure(None)
        ('0.520', '–')
    """
    return NONE if value is None or isnan(value) else f"{value:.{digits}f}"


def interval(estimate: Estimate | None, digits: int = 3) -> str:
    """A figure with its interval.

    Example:
        >>> interval(Estimate(0.5, 0.45, 0.56, 10))
        '0.500 (0.450 to 0.560)'
    """
    if estimate is None:
        return NONE
    if isnan(estimate.low):
        return figure(estimate.value, digits)
    low, high = figure(estimate.low, digits), figure(estimate.high, digits)
    return f"{figure(estimate.value, digits)} ({low} to {high})"


def difference(estimate: Estimate | None, digits: int = 3) -> str:
    """A difference with its interval, all with their signs.

    Example:
        >>> difference(Estimate(0.05, -0.01, 0.11, 10))
        '+0.050 (-0.010 to +0.110)'
    """
    if estimate is None:
        return NONE
    value, low, high = (f"{x:+.{digits}f}" for x in (estimate.value, estimate.low, estimate.high))
    return value if isnan(estimate.low) else f"{value} ({low} to {high})"


def claim_figure(verdict: ClaimVerdict) -> str:
    """Our figure for a claim: its difference or rate with the interval, or what its note says."""
    found, claim = verdict.estimate, verdict.claim
    if found is None:
        return verdict.note or NONE
    if claim.metric == "collapse":
        return f"{interval(found)}; {verdict.note}"
    return difference(found, 1 if claim.metric == "length" else 3)


def pair_of_shares(pair: tuple[float, float]) -> str:
    """pass@1 and pass@8.

    Example:
        >>> pair_of_shares((0.5, 0.875))
        '0.500 / 0.875'
    """
    return " / ".join(map(figure, pair))


def cost(row: ArmRow, name: str) -> str:
    """A cost of an arm, rounded."""
    return f"{dict(row.costs)[name]:,.0f}"


def code_words(text: str) -> Markup:
    """Text for HTML, in which `names` are set as code.

    Example:
        >>> code_words("`pass` < 1")
        Markup('<code>pass</code> &lt; 1')
    """
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
