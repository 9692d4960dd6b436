"""The standard streams and temporary files, opened so that their errors name them."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, TextIO, cast

from stepcredit.errors import FileError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD_INPUT, STANDARD_OUTPUT = "standard input", "standard output"
_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/([0-9]{1,9})")


def reason_of(error: OSError) -> str:
    """The first line of an error's message, in lower case, for the end of a message.

    Example:
        >>> reason_of(FileNotFoundError(errno.ENOENT, "No such file or directory"))
        'no such file or directory'
    """
    if error.errno == errno.EBADF:
        return "is closed"
    reason = (error.strerror or str(error)).strip().partition("\n")[0]
    return reason[:1].lower() + reason[1:]


def descriptor_of(path: str) -> int | None:
    """The number of the open descriptor that an output's name means; None for a file's name.

    Example:
        >>> descriptor_of("-"), descriptor_of("/dev/fd/7"), descriptor_of("out.jsonl")
        (1, 7, None)
    """
    if path == "-":
        return 1
    found = _DESCRIPTOR.fullmatch(path)
    if found is None:
        return None
    return int(found[2]) if found[1] is None else {"stdout": 1, "stderr": 2}[found[1]]


class NamedFile(io.FileIO):
    """A raw file whose errors in writing name the file.

    Args:
        handle: the file's descriptor.
        mode: as for `open`, in binary.
        title: what to call the file.
        remedy: advice for the user if writing fails, the end of the message.
        closefd: whether closing the file closes the descriptor.

    Example:
        >>> reading, writing = os.pipe()
        >>> out = NamedFile(reading, "wb", "the log")
        >>> out.write(b"x")
        Traceback (most recent call last):
        stepcredit.errors.FileError: the log: is closed
        >>> out.close(), os.close(writing)
        (None, None)
    """

    def __init__(
        self, handle: int, mode: str, title: str, remedy: str = "", *, closefd: bool = True
    ) -> None:
        super().__init__(handle, mode, closefd=closefd)
        self.title, self.remedy = title, remedy

    def write(self, data: ReadableBuffer, /) -> int:
        """Write bytes.

        Raises:
            FileError: `TITLE: reason`.
            BrokenPipeError: the reader closed the pipe; the error's `filename` is the title.
        """
        try:
            return super().write(data)
        except BrokenPipeError as error:
            raise BrokenPipeError(error.errno, error.strerror, self.title) from None
        except OSError as error:
            raise FileError(f"{self.title}: {reason_of(error)}{self.remedy}") from None


def standard_input() -> IO[bytes]:
    """The bytes of standard input.

    Raises:
        FileError: the process was started with this stream closed.
    """
    return _bytes_of(sys.stdin, STANDARD_INPUT)


def standard_output() -> IO[bytes]:
    """The bytes of standard output.

    Raises:
        FileError: the process was started with this stream closed.
    """
    return _bytes_of(sys.stdout, STANDARD_OUTPUT)


def _bytes_of(stream: TextIO | None, title: str) -> IO[bytes]:
    if stream is None:
        raise FileError(f"{title}: is closed")
    return stream.buffer


def temporary_file(folder: str | None = None) -> IO[bytes]:
    """A temporary file without a name; it is deleted when it is closed.

    Args:
        folder: the folder of the file; None: the system's folder for temporary files, which the
            environment variable TMPDIR sets. The error for a full disk then names the folder.

    Raises:
        FileError: there is no folder for temporary files.
        OSError: the file can't be made in `folder`.

    Example:
        >>> with temporary_file() as file:
        ...     _ = file.write(b"kept")
        ...     _ = file.seek(0)
        ...     file.read()
        b'kept'
    """
    if folder is not None:
        return tempfile.TemporaryFile(dir=folder, buffering=1 << 20)
    remedy = "; set TMPDIR to a folder with more room"
    with _no_folder():
        title = f"temporary files in {tempfile.gettempdir()}"
        with tempfile.TemporaryFile() as made:
            raw = NamedFile(os.dup(made.fileno()), "rb+", title, remedy)
    return cast(IO[bytes], io.BufferedRandom(raw, 1 << 20))


def temporary_folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """An empty folder in the system's folder for temporary files; `cleanup` deletes it.

    Raises:
        FileError: the system has no folder for temporary files, or it is full.

    Example:
        >>> with temporary_folder("stepcredit-") as folder:
        ...     os.listdir(folder)
        []
    """
    with _no_folder():
        return tempfile.TemporaryDirectory(prefix=prefix)


@contextmanager
def _no_folder() -> Iterator[None]:
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        reason = f"temporary files: {reason_of(error)}; set TMPDIR to a folder that can be written"
        raise FileError(reason) from None
