"""Reads one line of JSON with exact error messages; turns system errors into one line."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from stepcredit.errors import FileError, RolloutError
from stepcredit.handles import reason_of

BAD_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)
DEEPEST = 100
"""Most levels of lists and objects in a row: readers and writers recurse into them."""
TOO_DEEP = f"is nested too deeply: more than {DEEPEST} levels"
_NESTED = frozenset({list, dict})
_EXACT = json.JSONDecoder()
_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG = b"0" * 19
"""A run of digits that may be an integer beyond 64 bits, of which orjson makes a float."""
_FRACTION = b"." + _LONG
_NO_MARKS = bytes(set(range(256)) - set(b'[{:"\\/bfnrtu'))
"""All bytes but brackets, colons, quotes, and those of escapes: a backslash keeps what follows."""
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte order marks of other encodings; UTF-32's little-endian mark begins with UTF-16's."""


def parse(raw: bytes) -> Any:
    """The JSON value of a line. NaN and Infinity are read, so that a later check can name them.

    Integers are exact, however long.

    Raises:
        RolloutError: not UTF-8, not JSON, a string that is no Unicode, an object with a name
            twice, or more than `DEEPEST` levels.

    Example:
        >>> parse(b'{"outcome": NaN}')
        {'outcome': nan}
    """
    value = _value(raw)
    marks, members = raw.translate(None, _NO_MARKS), _members(value)
    if marks.count(b":") != members or marks.count(b"[") + marks.count(b"{") > DEEPEST:
        marks = _outside_strings(marks)
    if marks.count(b"[") + marks.count(b"{") > DEEPEST and _levels(value) > DEEPEST:
        raise RolloutError(TOO_DEEP)
    if marks.count(b":") != members:
        _refuse_repeated(raw)
    return value


def _value(raw: bytes) -> Any:
    if not _may_hold_long_integers(raw):
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            pass
    return _slow_value(raw)


def _may_hold_long_integers(raw: bytes) -> bool:
    """Whether there is a run of 19 digits that is not part of a fraction."""
    zeros = raw.translate(_AS_ZEROS)
    return _LONG in zeros and zeros.count(_LONG) > zeros.count(_FRACTION)


def _slow_value(raw: bytes) -> Any:
    try:
        value = _EXACT.decode(raw.decode())
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeDecodeError as error:
        for mark, encoding in _OTHER_MARKS.items():
            if raw.startswith(mark):
                raise RolloutError(f"is {encoding}, expected UTF-8") from None
        found = f"byte 0x{raw[error.start]:02x} at column {error.start + 1}"
        raise RolloutError(f"is not UTF-8: {found}") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise RolloutError(f"is not Unicode: {half} in a string is half a character") from None
    except json.JSONDecodeError as error:
        if b"\0" in raw:
            reason = f"holds a NUL byte at column {raw.index(0) + 1}: expected JSON in UTF-8"
            raise RolloutError(reason) from None
        raise RolloutError(f"is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise RolloutError(TOO_DEEP) from None
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise RolloutError(f"is not JSON that can be read: {reason}") from None


def _levels(value: Any) -> int:
    """How deeply lists and objects are nested, counted up to one more than is allowed."""
    level, inner = 0, [value]
    while level <= DEEPEST:
        inner = [part for part in inner if type(part) in _NESTED]
        if not inner:
            break
        inner = [v for part in inner for v in (part.values() if isinstance(part, dict) else part)]
        level += 1
    return level


def _refuse_repeated(raw: bytes) -> None:
    """Refuse an object with the same name twice."""

    def refuse(members: list[tuple[str, Any]]) -> dict[str, Any]:
        kept = dict(members)
        if len(kept) < len(members):
            counts = Counter(name for name, _ in members)
            reason = "is given twice in one object, so one of the two would be lost"
            raise RolloutError(reason, field=counts.most_common(1)[0][0])
        return kept

    json.loads(raw, object_pairs_hook=refuse)


def _outside_strings(marks: bytes) -> bytes:
    """The marks without those in strings: a colon per member, a bracket per list and object."""
    if b"\\" in marks:
        marks = marks.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(marks.split(b'"')[::2])


def _members(value: Any) -> int:
    """The members of all objects, each name counted once; at least those of the outermost.

    Lists whose first item is neither a list nor an object are not searched, so that those of
    numbers and texts cost nothing: the number may be too low, never too high.
    """
    members, inner = 0, [value]
    while inner:
        part = inner.pop()
        if type(part) is dict:
            members += len(part)
            part = list(part.values())
        elif type(part) is not list or not part or type(part[0]) not in _NESTED:
            continue
        inner += [item for item in part if type(item) in _NESTED]
    return members


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
