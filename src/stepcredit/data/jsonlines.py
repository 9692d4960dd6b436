"""One line of JSON, read so that what is wrong with it can be said; system errors in one line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from stepcredit.errors import FileError, RolloutError
from stepcredit.handles import reason_of

BAD_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
DEEPEST = 100
"""Levels of lists and objects that a row may have: every reader and writer of ours walks these."""
TOO_DEEP = f"is nested too deeply: more than {DEEPEST} levels"
_NESTED = frozenset({list, dict})
_SLOW = json.JSONDecoder()


def parse(raw: bytes) -> Any:
    """The JSON value of a line; NaN and Infinity are read, so that they can be refused by name.

    Raises:
        RolloutError: not UTF-8, not JSON, a string that is no Unicode, or more than `DEEPEST`
            levels.

    Example:
        >>> parse(b'{"outcome": NaN}')
        {'outcome': nan}
    """
    value = _value(raw)
    if raw.count(b"[") + raw.count(b"{") > DEEPEST and _levels(value) > DEEPEST:
        raise RolloutError(TOO_DEEP)
    return value


def _value(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        value = _SLOW.decode(raw.decode())
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeDecodeError as error:
        found = f"byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        raise RolloutError(f"is not UTF-8: {found}") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise RolloutError(f"is not Unicode: {half} in a string is half a character") from None
    except json.JSONDecodeError as error:
        raise RolloutError(f"is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RolloutError(TOO_DEEP) from None
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise RolloutError(f"is not JSON that can be read: {reason}") from None


def _levels(value: Any) -> int:
    """How deep lists and objects lie in each other, counted no further than is refused."""
    level, inner = 0, [value]
    while level <= DEEPEST:
        inner = [part for part in inner if type(part) in _NESTED]
        if not inner:
            break
        inner = [v for part in inner for v in (part.values() if isinstance(part, dict) else part)]
        level += 1
    return level


@contextmanager
def file_errors(name: str) -> Iterator[None]:
    """Turn the system's errors into one line that names the file.

    Raises:
        FileError: `FILE: reason`.
    """
    try:
        yield
    except FileError:
        raise
    except BAD_GZIP as error:
        raise FileError(f"{name}: is not a whole gzip file: {error}") from None
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(f"{name}: {reason_of(error)}") from None
