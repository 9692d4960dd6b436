"""Reads the data of a page as its script does: rows of the list, and each response unpacked."""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from typing import Any


def data_of(page: str) -> dict[str, Any]:
    """The data element of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def unpacked(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the list with its texts, and its columns as lists."""
    raw = zlib.decompress(base64.b64decode(row["packed"]))
    size = struct.unpack("<I", raw[:4])[0]
    found, rest = json.loads(raw[4 : 4 + size]), raw[4 + size :]
    columns: list[list[float]] = []
    for count, exponent, order in found.pop("columns"):
        values: list[int] = []
        for i in range(count):
            folded = rest[i] + 256 * rest[count + i]
            change = -(folded + 1) // 2 if folded % 2 else folded // 2
            one, two = (values[-n] if len(values) >= n else 0 for n in (1, 2))
            values.append(change + (0, one, 2 * one - two)[order])
        rest = rest[2 * count :]
        scale = [x if exponent == 0 else float(f"{x}e{exponent}") for x in values]
        columns.append(scale[::-1])
    assert rest == b""
    return {**row, **_with_columns(found, columns)}


def _with_columns(value: Any, columns: list[list[float]]) -> Any:
    """Column numbers replaced; they stand where no other list is."""
    place = {"steps", "ends", "values"}
    found = dict(value)
    for name, item in value.items():
        if name == "stages":
            found[name] = {
                stage: columns[x[0]] if isinstance(x, list) else x for stage, x in item.items()
            }
        elif name in place and isinstance(item, list):
            found[name] = columns[item[0]]
        elif name in ("streams", "methods"):
            found[name] = {one: _with_columns(of, columns) for one, of in item.items()}
    return found
