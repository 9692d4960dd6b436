"""Writes output files atomically: a file is complete, or it is as it was before."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

from stepcredit.data.files.jsonl import file_errors
from stepcredit.handles import STANDARD_OUTPUT, NamedFile, descriptor_of, standard_output

LONGEST_NAME = 255
"""Bytes of a file's name on the usual file systems."""
KEPT_OF_NAME = 40
"""Characters of a name too long to be a part of another."""


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file to write; it replaces `path` when the block ends without an error.

    It is written beside `path`, synced, and renamed: an existing file stays untouched until then,
    and after a failure. If `path` is a symbolic link, the file that it points to is replaced, and
    the link stays; if it is a hard link, only this name gets the new content. A name that ends in
    `.gz` is compressed.
    "-" is standard output; it, a device, a pipe or an open descriptor (`/dev/fd/N`) is written
    directly. A killed process (SIGKILL) may leave its hidden file `.NAME.XXXXXXXX.part`, which
    nothing reads.

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
    if descriptor_of(name) == 1:
        with file_errors(STANDARD_OUTPUT):
            out = standard_output()
            yield out
            out.flush()
        return
    with file_errors(name):
        if is_streamed(name):
            handle = descriptor_of(name)
            opened = os.open(name, os.O_WRONLY) if handle is None else os.dup(handle)
            with io.BufferedWriter(NamedFile(opened, "wb", name)) as stream:
                yield stream
        else:
            with _beside(os.path.realpath(name)) as out, _compressed(out, name) as whole:
                yield whole


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        FileError: it can't be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "figures.json"
        >>> write_json(path, {"f1": 0.5})
        >>> path.read_text()
        '{\\n  "f1": 0.5\\n}\\n'
    """
    with replacing(path) as out:
        out.write(json.dumps(value, indent=2).encode() + b"\n")


def check_writable(path: str | Path) -> None:
    """Refuse an output that `replacing` could not write, before the work for it begins.

    A file is made beside it and deleted again; a pipe or device is not opened.

    Raises:
        FileError: the reason that `replacing` would give.

    Example:
        >>> check_writable("/no/such/folder/out.jsonl")
        Traceback (most recent call last):
        stepcredit.errors.FileError: /no/such/folder/out.jsonl: no such file or directory
    """
    name = str(path)
    handle = descriptor_of(name)
    if handle == 1:
        standard_output()
        return
    with file_errors(name):
        if handle is not None:
            os.fstat(handle)
        elif not is_streamed(name):
            made, temporary = _draft(os.path.realpath(name))
            os.close(made)
            os.unlink(temporary)
        elif os.path.isdir(name):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        elif not os.access(name, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def folder_of(path: str | Path) -> str | None:
    """The folder for temporary files that go with an output; None: the system's."""
    name = str(path)
    return None if is_streamed(name) else os.path.dirname(os.path.realpath(name))


def hidden_name(name: str, ending: str) -> str:
    """`.NAME.ENDING`; if that is too long, the start of the name and a digest of it.

    Example:
        >>> hidden_name("out.jsonl", "scored.sqlite")
        '.out.jsonl.scored.sqlite'
        >>> len(hidden_name("x" * 250, "scored.sqlite"))
        72
    """
    whole = f".{name}.{ending}"
    if len(os.fsencode(whole)) + len("-journal") <= LONGEST_NAME:  # what SQLite adds
        return whole
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    return f".{name[:KEPT_OF_NAME]}.{digest}.{ending}"


def is_streamed(path: str | Path) -> bool:
    """Whether `replacing` writes an output directly: it is no regular file, nor becomes one.

    Example:
        >>> is_streamed("-"), is_streamed("/dev/null"), is_streamed("a_new_file.jsonl")
        (True, True, False)
    """
    name = str(path)
    return descriptor_of(name) is not None or (os.path.exists(name) and not os.path.isfile(name))


def _draft(target: str) -> tuple[int, str]:
    """Make a hidden file beside the target, to replace it later: its descriptor and path.

    Raises:
        OSError: it can't be made, or the target is one that can't be written.
    """
    with suppress(FileNotFoundError):
        os.stat(target)  # refuses a name too long, and links that lead in a circle
        if not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    folder, name = os.path.split(target)
    prefix, _, _ = hidden_name(name, "XXXXXXXX.part").rpartition("XXXXXXXX")
    return tempfile.mkstemp(prefix=prefix, suffix=".part", dir=folder)


@contextmanager
def _beside(target: str) -> Iterator[IO[bytes]]:
    handle, temporary = _draft(target)
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
