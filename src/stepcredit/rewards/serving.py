"""The loop of a worker process: untrusted items in, one letter an item out.

The parent ends a process that takes too long. Should the parent be gone, the kernel does: each item
runs under an alarm that nobody handles, and that ends the process inside C code too.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import socket
import warnings
from collections.abc import Callable
from contextlib import suppress

from stepcredit.rewards.letters import READY

MEMORY = 2 << 30
"""Bytes of address space a worker may take; past it, an answer is wrong."""


def serve(handle: int, ready: Callable[[], None], verdict: Callable[[str, str], str]) -> None:
    """Grade batches from a socket until it closes.

    A batch is a line of JSON, `{"limit": seconds, "pairs": [[answer, gold], ...]}`; one letter an
    item goes back as soon as it is known.

    Args:
        handle: the socket's file descriptor.
        ready: called once, before the first batch is asked for.
        verdict: the letter of an answer and what it is held against.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with socket.socket(fileno=handle) as link, link.makefile("rb") as lines:
        ready()
        link.sendall(READY.encode())
        for line in lines:
            batch = json.loads(line)
            for answer, gold in batch["pairs"]:
                signal.setitimer(signal.ITIMER_REAL, batch["limit"] + 1)
                letter = verdict(answer, gold)
                signal.setitimer(signal.ITIMER_REAL, 0)
                link.sendall(letter.encode())
