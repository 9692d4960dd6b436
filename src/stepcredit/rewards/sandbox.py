"""Confines a process that grades untrusted text, with limits of the operating system.

The graders decide from the parsed text what they evaluate; this module is the second protection.
docs/security.md says what is protected on which system. Linux: a Landlock ruleset for files and a
seccomp filter for system calls, both without privileges. Other systems have only the resource
limits.

References: the kernel's documentation, userspace-api/landlock.rst and seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress

from stepcredit.rewards.syscalls import ARCHITECTURES, Calls

MEMORY = 2 << 30
"""Bytes of address space that a grading process may take; past it, an answer is wrong."""
FILE_SIZE = 64 << 10
"""Bytes that a grading process may write to one file, such as that of its errors."""
OPEN_FILES = 128
"""Files that a grading process may hold open at once."""

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SIGKILL = 9


def limit_resources(cpu_seconds: int, *, processes: bool) -> None:
    """Set limits on memory, CPU time, file size and open files that can't be raised again.

    Args:
        cpu_seconds: CPU time in seconds after which the kernel ends this process.
        processes: True if it may start others; False sets the limit on processes to 0, which the
            kernel does not apply to root.
    """
    limits = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: FILE_SIZE,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if not processes:
        limits[resource.RLIMIT_NPROC] = 0
    for kind, limit in limits.items():
        with suppress(ValueError, OSError):  # macOS has no limit on address space
            resource.setrlimit(kind, (limit, limit))


def die_with_parent() -> None:
    """Make the kernel end this process when its parent ends (Linux)."""
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)


# --- files: Landlock ------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_FOLDER, _EXECUTE = 1 << 2, 1 << 3, 1 << 0
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""The rights over files that each version of Landlock handles, from its lowest version on."""
_TCP_RIGHTS, _SCOPES = 0b11, 0b11
_TCP_SINCE, _SCOPES_SINCE = 4, 6


def allow_reading_only(places: Iterable[str]) -> bool:
    """Let this process read and load these files, and those below these folders, and nothing else.

    Since Linux 6.7 TCP is blocked too, and since 6.12 signals to other processes.

    Returns:
        False if the kernel has no Landlock; then nothing is changed.
    """
    version = _landlock_version()
    if version < 1:
        return False
    rights = max(mask for since, mask in _FILE_RIGHTS.items() if since <= version)
    tcp = _TCP_RIGHTS if version >= _TCP_SINCE else 0
    scopes = _SCOPES if version >= _SCOPES_SINCE else 0
    attributes = struct.pack("=QQQ", rights, tcp, scopes)
    size = 8 if not tcp else 16 if not scopes else 24
    ruleset = _libc().syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if ruleset < 0:
        return False
    try:
        for place in places:
            _allow_reading(ruleset, place)
        return _no_new_privileges() and _libc().syscall(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _landlock_version() -> int:
    if sys.platform != "linux":
        return 0
    return int(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION))


def _allow_reading(ruleset: int, place: str) -> None:
    try:
        handle = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = _READ_FILE | _EXECUTE | (_READ_FOLDER if os.path.isdir(place) else 0)
        rule = struct.pack("=Qi", rights, handle)
        _libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(handle)


# --- system calls: seccomp ------------------------------------------------------------------------

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_FILTER_MODE = 2
_AT_LEAST = 0x35
_NEWEST_KNOWN = 462
"""Calls with a higher number are answered as by a kernel that does not have them."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000
"""The flags of `open` that let a file be written or made; the last is a file without a name."""
_FCNTL_COMMANDS = (0, 1, 2, 3, 4, 1030)
"""Duplicate, and read or set the flags; none that has the kernel signal another process."""


def allow_computing_only() -> bool:
    """Let this process compute, read what it may open, and use the sockets that it holds.

    Starting processes and threads, new sockets, writing or removing files, signals, tracing and
    every other system call that is not on the list fail with EPERM.

    Returns:
        False if the system has no such filter, or the processor's calls are not listed.
    """
    calls = ARCHITECTURES.get(platform.machine()) if sys.platform == "linux" else None
    if calls is None or struct.calcsize("P") != 8:
        return False
    program = _program(calls)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
    return _no_new_privileges() and (
        _libc().prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.c_char_p(header), 0, 0) == 0
    )


def _program(calls: Calls) -> bytes:
    """The filter, as the kernel's classic BPF: 8 bytes per instruction."""
    lines = [
        _line(_LOAD, _ARCHITECTURE_AT),
        _line(_EQUAL, calls.architecture, 1, 0),
        _line(_RETURN, _KILL),
        _line(_LOAD, _NUMBER_AT),
    ]
    for number, argument in calls.opens.items():
        lines += [_line(_EQUAL, number, 0, 4)]
        lines += [_line(_LOAD, _ARGUMENTS_AT + 8 * argument), _line(_ANY_BIT, _WRITES, 0, 1)]
        lines += [_line(_RETURN, _ERRNO | _EPERM), _line(_RETURN, _ALLOW)]
    lines += [_line(_EQUAL, calls.fcntl, 0, 2 * len(_FCNTL_COMMANDS) + 2)]
    lines += [_line(_LOAD, _ARGUMENTS_AT + 8)]
    for command in _FCNTL_COMMANDS:
        lines += [_line(_EQUAL, command, 0, 1), _line(_RETURN, _ALLOW)]
    lines += [_line(_RETURN, _ERRNO | _EPERM)]
    for number in sorted(calls.allowed):
        lines += [_line(_EQUAL, number, 0, 1), _line(_RETURN, _ALLOW)]
    lines += [_line(_AT_LEAST, _NEWEST_KNOWN + 1, 0, 1), _line(_RETURN, _ERRNO | _ENOSYS)]
    return b"".join([*lines, _line(_RETURN, _ERRNO | _EPERM)])


def _line(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """One instruction; the last two arguments are the instructions that a comparison skips."""
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _no_new_privileges() -> bool:
    return bool(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def walls() -> dict[str, bool]:
    """Which of the two protections work on this system; a child process tries them.

    Example:
        >>> sorted(walls())
        ['files', 'system calls']
    """
    return {
        "files": _holds(lambda: allow_reading_only([])),
        "system calls": _holds(allow_computing_only),
    }


def _holds(confine: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        os._exit(0 if confine() else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
