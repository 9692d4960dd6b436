"""The system calls that a grading process may use, by the processor's numbers."""

from __future__ import annotations

from dataclasses import dataclass

_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # name: (x86-64, arm64); None if the processor has no such call
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "close": (3, 57),
    "lseek": (8, 62),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "stat": (4, None),
    "lstat": (6, None),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe2": (293, 59),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    "mincore": (27, 232),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrandom": (318, 278),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "times": (100, 153),
    "sched_getaffinity": (204, 123),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "restart_syscall": (219, 128),
    "rseq": (334, 293),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "membarrier": (324, 283),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "shutdown": (48, 210),
    "arch_prctl": (158, None),
}
"""Reading, memory, time, waiting and what a process asks of itself. Numbers: the kernel's headers
asm/unistd_64.h and asm-generic/unistd.h."""


@dataclass(frozen=True)
class Calls:
    """The numbers of one processor.

    Args:
        architecture: the kernel's number of the processor, AUDIT_ARCH_*.
        allowed: calls that are allowed whatever their arguments.
        opens: calls that open files: the number, and the index of the argument with the flags.
        fcntl: the number of `fcntl`.
    """

    architecture: int
    allowed: frozenset[int]
    opens: dict[int, int]
    fcntl: int


def _allowed(column: int) -> frozenset[int]:
    numbers = (row[column] for row in _NUMBERS.values())
    return frozenset(number for number in numbers if number is not None)


ARCHITECTURES = {
    "x86_64": Calls(0xC000003E, _allowed(0), {2: 1, 257: 2}, 72),
    "aarch64": Calls(0xC00000B7, _allowed(1), {56: 2}, 25),
}
