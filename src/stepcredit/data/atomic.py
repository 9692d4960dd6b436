"""Output files that are there whole or not at all."""

from __future__ import annotations

import gzip
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from stepcredit.data.jsonlines import file_errors


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write in full; it takes the place of `path` when the block ends well.

    It is written beside `path`, synced, and renamed: an existing file stays untouched until then,
    and after a failure. A name in `.gz` is compressed. "-" is standard output; that, a device or a
    pipe is written as it comes.

    Raises:
        FileError: the file can't be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with replacing(path) as out:
        ...     _ = out.write(b"whole")
        >>> path.read_bytes()
        b'whole'
    """
    name = str(path)
    with file_errors("standard output" if name == "-" else name):
        if name == "-":
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        elif os.path.exists(name) and not os.path.isfile(name):
            with open(name, "wb") as device:
                yield device
        else:
            with _beside(os.path.realpath(name)) as out, _compressed(out, name) as whole:
                yield whole


def folder_of(path: str | Path) -> str | None:
    """The folder for temporary files that go with an output; None: the system's."""
    name = str(path)
    regular = name != "-" and (os.path.isfile(name) or not os.path.exists(name))
    return os.path.dirname(os.path.realpath(name)) if regular else None


@contextmanager
def _beside(target: str) -> Iterator[IO[bytes]]:
    folder, name = os.path.split(target)
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
    try:
        with open(handle, "wb", buffering=1 << 20) as out:
            yield out
            out.flush()
            os.fchmod(handle, _mode(target))
            os.fsync(handle)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


@contextmanager
def _compressed(out: IO[bytes], name: str) -> Iterator[IO[bytes]]:
    if not name.endswith(".gz"):
        yield out
        return
    with gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as packed:
        yield cast(IO[bytes], packed)


def _mode(target: str) -> int:
    """Permissions of the file that is replaced, or those a new file gets."""
    if os.path.exists(target):
        return stat.S_IMODE(os.stat(target).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
