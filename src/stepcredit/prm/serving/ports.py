"""Whether a port is free, and whether another process than a server listens at it."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from stepcredit.errors import SignalError

PROC = Path("/proc")
LISTENS, CLOSED = "0A", "06"
"""States of a socket in /proc/net/tcp: it listens; it is closed, and its port rests a minute."""
Address = IPv4Address | IPv6Address


class Socket(NamedTuple):
    """A row of /proc/net/tcp."""

    address: Address
    state: str
    inode: str


def refuse_used_port(host: str | None, port: int, url: str) -> None:
    """Refuse a port that another process holds, also one that does not listen at it yet.

    A server that shares its port with others on purpose (SO_REUSEPORT, as vLLM's) is found too.

    Args:
        host: the address at which a server is to listen; None: all of this machine's.
        port: of the server.
        url: how an error names the server.

    Raises:
        SignalError: the port is in use.
    """
    found = []
    with suppress(OSError):  # a name that is no address: the server says so itself
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, *_, address in found:
        # where closed connections hold it, only sockets that listen count: they refuse reuse too
        if _is_bound(family, address, reuse=_rests(port)):
            raise SignalError(f"port {port} is in use: give another with --port", place=url)


def _is_bound(family: int, address: tuple[object, ...], *, reuse: bool) -> bool:
    """Whether an address can't be bound because another socket has it."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if reuse:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:  # others, such as a port for root alone, the server reports itself
        return error.errno == errno.EADDRINUSE
    return False


def _rests(port: int) -> bool:
    """Whether closed connections still hold a port, as they do for a minute after a server."""
    return any(each.state == CLOSED for each in sockets_at(port))


def refuse_other_listeners(group: int, host: str | None, port: int, url: str) -> None:
    """Refuse a port at which another process listens than those of a process group.

    Without /proc, nothing is checked.

    Args:
        group: the process group of the server.
        host: the address at which the server listens; None: all of this machine's.
        port: of the server.
        url: how an error names the server.

    Raises:
        SignalError: another process listens there, so what answers may be another server.
    """
    inodes = {
        each.inode
        for each in sockets_at(port)
        if each.state == LISTENS and _reaches(each.address, host, port)
    }
    own = inodes_of_group(group) if inodes else set()
    if own is not None and inodes - own:
        reason = f"another process listens at port {port}, so another server may answer"
        raise SignalError(f"{reason}: give another with --port", place=url)


def _reaches(address: Address, host: str | None, port: int) -> bool:
    """Whether a listener at an address may get what is sent to a server at `host`."""
    if address.is_unspecified or host is None:
        return True
    with suppress(OSError, ValueError):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        wanted = {ip_address(str(each[4][0]).partition("%")[0]) for each in found}
        return address in wanted or any(each.is_unspecified for each in wanted)
    return True


def sockets_at(port: int) -> Iterator[Socket]:
    """The TCP sockets of this machine at a port, where there is /proc."""
    for name in ("tcp", "tcp6"):
        with suppress(OSError):
            for row in (PROC / "net" / name).read_text().splitlines()[1:]:
                words = row.split()
                address, _, at = words[1].partition(":")
                if int(at, 16) == port:
                    yield Socket(address_of(address), words[3], words[9])


def address_of(digits: str) -> Address:
    """An IP address from the digits of /proc/net/tcp: 32-bit words in the machine's byte order.

    Example:
        >>> sys.byteorder == "big" or address_of("0100007F") == ip_address("127.0.0.1")
        True
    """
    raw = bytes.fromhex(digits)
    order = -1 if sys.byteorder == "little" else 1
    address = ip_address(b"".join(raw[at : at + 4][::order] for at in range(0, len(raw), 4)))
    return getattr(address, "ipv4_mapped", None) or address


def inodes_of_group(group: int) -> set[str] | None:
    """The inodes of the sockets that a process group holds; None: the system does not show them."""
    found = set()
    for process in PROC.glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) != group:
                continue
            for handle in (process / "fd").iterdir():
                with suppress(FileNotFoundError):
                    kind, _, inode = os.readlink(handle).partition(":")
                    if kind == "socket":
                        found.add(inode.strip("[]"))
        except PermissionError:
            return None
        except (ProcessLookupError, FileNotFoundError):  # it ended meanwhile
            continue
    return found
