"""Writes rows to a rollout file, atomically."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch

from stepcredit.data.files.atomic import folder_of, replacing
from stepcredit.data.files.jsonl import TOO_DEEP, parse
from stepcredit.data.files.rows import check_row
from stepcredit.data.rules import shown
from stepcredit.errors import RolloutError
from stepcredit.handles import temporary_file


def write_rollouts(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows to a rollout file; after an error the file is as it was before.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-".
        rows: dictionaries, each checked by itself; values may be tensors and arrays (float32 is
            written shortest).

    Raises:
        RolloutError: a row that breaks a rule; it carries the row and the field.
        FileError: the file can't be written, or no rows into a Parquet file.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rollouts.jsonl.gz"
        >>> scores = torch.tensor([0.1, 0.2])
        >>> write_rollouts(path, [{"group": 1, "token_scores": scores, "outcome": 1.0}])
        >>> import gzip
        >>> gzip.open(path).read()
        b'{"group":1,"token_scores":[0.1,0.2],"outcome":1.0}\\n'
    """
    lines = (_line(row, position) for position, row in enumerate(rows))
    with replacing(path) as out:
        if not str(path).endswith(".parquet"):
            out.writelines(lines)
            return
        from stepcredit.data.files.parquet import from_lines

        with temporary_file(folder_of(path)) as spool:
            spool.writelines(lines)

            def again() -> Iterable[bytes]:
                spool.seek(0)
                return spool

            from_lines(again, out, str(path))


def _line(row: dict[str, Any], position: int) -> bytes:
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    try:
        check_row({name: _plain(value) for name, value in row.items()})
        try:
            line = orjson.dumps(row, default=_array, option=options)
        except orjson.JSONEncodeError as error:
            if "64-bit" not in str(error):
                raise
            line = _with_long_integers(row)
        parse(line)
        if b"null" in line:
            for name, value in row.items():
                _refuse_not_finite(value, name)
    except RolloutError as error:
        raise error.at(row=position) from error.__cause__
    except RecursionError:
        raise RolloutError(TOO_DEEP, row=position) from None
    except (TypeError, ValueError) as error:
        raise RolloutError(f"can't be written as JSON: {error}", row=position) from None
    return line


def _with_long_integers(row: dict[str, Any]) -> bytes:
    """A row written by Python's json module, which takes integers of any length."""
    for name, value in row.items():
        _refuse_not_finite(value, name)
    text = json.dumps(_plain(row), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def _refuse_not_finite(value: Any, name: str) -> None:
    """Refuse NaN and Infinity by field: as JSON they would become null."""
    value = _plain(value)
    if isinstance(value, float) and not isfinite(value):
        raise RolloutError(f"{shown(value, as_json=True)} can't be written as JSON", field=name)
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            _refuse_not_finite(inner, name)


def _plain(value: Any) -> Any:
    """Arrays as lists, so that a row is checked as if it had been read from a file."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray | np.generic) else value


def _array(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    raise TypeError(f"{type(value).__name__} can't be written as JSON")
