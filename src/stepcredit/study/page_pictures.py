"""The pictures of the Markdown page: files beside it, one or two per preset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stepcredit.data.files.jsonl import file_errors
from stepcredit.study.budget import SLICED
from stepcredit.study.study_data import StudyData
from stepcredit.study.study_figures import preset_curves_svg, preset_forests_svg
from stepcredit.study.study_tables import ArmCurve, CellTable, arm_curves, cell_tables
from stepcredit.study.tuning import TUNING

FOLDER = "figures/evidence"
"""Where the pictures are, from the folder of the page."""
MOST_CURVES = 7
"""With more arms than this, variants of a method (labels with a colon) are left out of curves."""


def picture_files(preset: str, tables: Sequence[CellTable]) -> tuple[str, ...]:
    """Files of a preset's pictures: paired differences, and curves where it is run in full.

    Tuning has no picture: it compares settings, not methods.

    Args:
        preset: its name.
        tables: its tables.
    """
    if preset == TUNING or not any(row.difference for table in tables for row in table.rows):
        return ()
    curves = [] if preset in SLICED else [f"{preset}-curves.svg"]
    return (f"{preset}.svg", *curves)


def write_pictures(data: StudyData, folder: Path) -> list[Path]:
    """Draw the pictures of every preset.

    Args:
        data: the runs.
        folder: where they go; it is made.

    Returns:
        The files.

    Raises:
        FileError: a file can't be written.
    """
    written = []
    with file_errors(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        for preset in data.presets:
            tables = cell_tables(preset, data)
            for file in picture_files(preset, tables):
                (folder / file).write_text(_drawn(file, preset, tables, data) + "\n")
                written.append(folder / file)
    return written


def _drawn(file: str, preset: str, tables: Sequence[CellTable], data: StudyData) -> str:
    if file == f"{preset}.svg":
        return preset_forests_svg(preset, tables)
    return preset_curves_svg(preset, [(table, _shown_curves(table, data)) for table in tables])


def _shown_curves(table: CellTable, data: StudyData) -> list[ArmCurve]:
    """The curves of a table; of many arms, those of the methods without their variants."""
    labels = [row.label for row in table.rows]
    methods = [label for label in labels if ":" not in label]
    shown = methods if len(labels) > MOST_CURVES and len(methods) > 1 else labels
    return [curve for curve in arm_curves(table, data) if curve.label in shown]
