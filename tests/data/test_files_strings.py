"""What is written can be read: strings that are no Unicode, deep rows and the like are not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import stepcredit as sc
from stepcredit.data.files.jsonl import DEEPEST, TOO_DEEP
from stepcredit.errors import RolloutError


def nested(levels: int) -> Any:
    """A row's value that lies so deep that the row has this many levels."""
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return value


WRITTEN: dict[str, tuple[dict[str, Any], str]] = {
    "half a character in the label": (
        {"group": "\ud800"},
        "can't be written as JSON: str is not valid UTF-8: surrogates not allowed",
    ),
    "half a character in a text": (
        {"text": "a\udfff"},
        "can't be written as JSON: str is not valid UTF-8: surrogates not allowed",
    ),
    "a set": ({"seen": {1, 2}}, "can't be written as JSON: Type is not JSON serializable: set"),
    "a level too deep": ({"x": nested(DEEPEST + 1)}, TOO_DEEP),
    "lists beyond the stack": ({"group": nested(2000)}, TOO_DEEP),
    "lists beyond the writer": (
        {"x": nested(2000)},
        "can't be written as JSON: Recursion limit reached",
    ),
}


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("case", WRITTEN)
def test_what_could_not_be_read_is_not_written(case: str, name: str, tmp_path: Path) -> None:
    fields, reason = WRITTEN[case]
    good = {"group": 1, "length": 2}
    with pytest.raises(RolloutError, match=f"^row 1: {re.escape(reason)}$"):
        sc.write_rollouts(tmp_path / name, [good, good | fields])
    assert list(tmp_path.iterdir()) == []


def test_the_deepest_row_is_shaped_as_any_other(tmp_path: Path) -> None:
    row = {"group": 1, "length": 2, "advantages": [9, 9], "x": nested(DEEPEST), "text": "[{" * 99}
    sc.write_rollouts(tmp_path / "in.jsonl", [row])
    with sc.RolloutFile(tmp_path / "in.jsonl") as file:
        file.shape(tmp_path / "out.jsonl", sc.PASS())
    assert json.loads((tmp_path / "out.jsonl").read_text()) == row | {"advantages": [0.0, 0.0]}


def test_characters_beyond_the_first_plane_stay(tmp_path: Path) -> None:
    row = '{"group": "\\ud83d\\ude00", "length": 1, "x": [NaN]}\n'
    (tmp_path / "in.jsonl").write_text(row)
    (label,) = (row["group"] for row in sc.read_rows(tmp_path / "in.jsonl"))
    assert label == "\U0001f600"


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf%b", b"\xef\xbb\xbf\r\n%b", b"%b\r\n\r\n%b"])
def test_marks_and_blank_lines_are_no_part_of_a_row(content: bytes, tmp_path: Path) -> None:
    row = b'{"group": 1, "length": 1}'
    (tmp_path / "in.jsonl").write_bytes(content.replace(b"%b", row))
    with sc.RolloutFile(tmp_path / "in.jsonl") as file:
        rows = file.shape(tmp_path / "out.jsonl", sc.PASS())
    shaped = row[:-1] + b',"advantages":[0.0]}\n'
    assert (tmp_path / "out.jsonl").read_bytes() == shaped * rows
    assert rows == content.count(b"%b")


def test_labels_beyond_64_bits_are_exact(tmp_path: Path) -> None:
    """As 64-bit floats, these two would be one group."""
    labels = [2**64, 2**64 + 1, 2**64]
    lines = [json.dumps({"group": label, "length": 1, "outcome": 1}) for label in labels]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    assert [row["group"] for row in sc.read_rows(tmp_path / "in.jsonl")] == labels
    assert sc.read_rollouts(tmp_path / "in.jsonl").group_index.tolist() == [0, 1, 0]
