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

BAD_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
_SLOW = json.JSONDecoder()


def parse(raw: bytes) -> Any:
    """The JSON value of a line; NaN and Infinity are read, so that they can be refused by name.

    Raises:
        RolloutError: not UTF-8, or not JSON.

    Example:
        >>> parse(b'{"outcome": NaN}')
        {'outcome': nan}
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        pass
    try:
        return _SLOW.decode(raw.decode())
    except UnicodeDecodeError as error:
        found = f"byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        raise RolloutError(f"is not UTF-8: {found}") from None
    except json.JSONDecodeError as error:
        raise RolloutError(f"is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RolloutError("is nested too deeply") from None
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise RolloutError(f"is not JSON that can be read: {reason}") from None


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
        reason = error.strerror or str(error)
        raise FileError(f"{name}: {reason[:1].lower()}{reason[1:]}") from None
