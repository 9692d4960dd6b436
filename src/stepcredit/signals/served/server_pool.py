"""`ServerPool`: the servers of one signal; each request goes to the one with the fewest under way.

A server that fails is set aside: it rests for a while, longer after each further fault, and then
gets one request at a time until one is answered. Its requests go to the others. What is known of a
server outlives the pool (`ServedRecords`), so that the next batch does not wait for a dead one
again. Which model a server serves is asked again in every stream, since one may have been started
anew with another model in between.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any, Generic, Self, TypeVar

import anyio

from stepcredit.signals.served.client import Client, trusted_certificates
from stepcredit.signals.served.failures import Ended, Fault, OtherModel, Refused
from stepcredit.signals.served.secrets import Redactor, api_key
from stepcredit.signals.served.server import Server
from stepcredit.signals.served.server_records import LONGEST_REST, ServedRecords, ServerRecord
from stepcredit.signals.served.side_by_side import together

Answer = TypeVar("Answer")
LATE = "no answer before the deadline"
"""The fault of a server whose request was cancelled by the deadline of its response."""
OF_THE_SERVER = {401, 403, 404}
"""Statuses by which a server that answered before shows that it was started anew otherwise."""


@dataclass
class ServedRequest(Generic[Answer]):
    """A request that any server of a pool may answer.

    Args:
        path: the endpoint, under a server's address.
        content: the body.
        read: reads the answer; raises a `Fault` for a malformed one.
        ends: when it is cancelled, on the monotonic clock.
        was_sent: whether it was sent before.
    """

    path: str
    content: bytes
    read: Callable[[Any], Answer]
    ends: float = inf
    was_sent: bool = False

    @property
    def is_late(self) -> bool:
        """Whether its time is over."""
        return time.monotonic() >= self.ends


@dataclass(eq=False)
class Member:
    """One server of a pool.

    Args:
        client: its connections.
        record: its health and counts.
        is_asked: whether it was asked in this stream which model it serves.
        asking: held meanwhile, so that many requests ask it once.
    """

    client: Client
    record: ServerRecord
    is_asked: bool = False
    asking: anyio.Lock = field(default_factory=anyio.Lock)

    @property
    def url(self) -> str:
        """Its address."""
        return self.client.url


class ServerPool:
    """Connections to one or several servers of the same model, bounded in number.

    Args:
        server: the addresses, timeouts and retries.
        model: the name under which each of several servers must serve the model; None: only that
            all serve the same.
        records: what is known of the servers; it is updated.

    Raises:
        SettingError: the API key's environment variable is not set, or holds no key.
        SignalError: the certificates that the environment names can't be read.
    """

    def __init__(
        self, server: Server, model: str | None = None, records: ServedRecords | None = None
    ) -> None:
        key = api_key(server.api_key_env)
        certificates = trusted_certificates()
        self.server, self.redact, self.model = server, Redactor(key), model
        self.records = ServedRecords() if records is None else records
        self.members = [
            Member(Client(url, server, key, certificates), self.records.of(url))
            for url in server.urls
        ]
        self._slots = anyio.CapacityLimiter(server.concurrency)
        self._proving = anyio.Lock()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for member in self.members:
            await self._open.enter_async_context(member.client)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._open.aclose()

    @property
    def has_several(self) -> bool:
        """Whether there is more than one server."""
        return len(self.members) > 1

    def choose(self, tried: Collection[Member]) -> Member | None:
        """The server for a request: of those that are not set aside, the least busy.

        Args:
            tried: those that failed to answer this request just now.

        Returns:
            None if all others are set aside. Where nothing was tried yet, there is always one: if
            all are set aside, the one whose rest ends first.
        """
        now = time.monotonic()
        ready = [each for each in self.members if each not in tried and each.record.is_ready(now)]
        if ready:
            return min(ready, key=lambda each: (each.record.outstanding, each.record.sent))
        return None if tried else min(self.members, key=lambda each: each.record.rests_until)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One of the `concurrency` places for requests under way."""
        if self._slots.available_tokens > 0 and not self._slots.statistics().tasks_waiting:
            async with self._slots:
                yield
            return
        since, served = self.records.queue(1), False
        try:
            await self._slots.acquire()
            served = True
        finally:
            self.records.leave(since, served=served)
        try:
            yield
        finally:
            self._slots.release()

    async def send(self, member: Member, request: ServedRequest[Answer]) -> Answer:
        """Send a request to one server, once.

        Raises:
            Fault: no usable answer; another try or another server may have one.
            Refused: a final failure; its text begins with the address.
        """
        record = member.record
        began = record.begin(again=request.was_sent)
        request.was_sent = True
        try:
            if self.has_several:
                await self._check_model(member, began)
            answer = request.read(await member.client.post(request.path, request.content))
            self._agree(member)
        except Ended as ended:
            raise self._noted(member, began, ended, request.path) from None
        except anyio.get_cancelled_exc_class():
            if request.is_late:
                record.fail(began, LATE, self.server.backoff, 0.0)
            raise
        finally:
            record.end(began)
        record.answer(began)
        return answer

    def _noted(self, member: Member, began: float, ended: Ended, path: str) -> Ended:
        """Note a failure of a server; returns what it means for the request."""
        record = member.record
        is_changed = ended.status in OF_THE_SERVER and record.is_known and self.has_several
        if isinstance(ended, Refused) and not is_changed:
            record.refuse(self.text(ended))
            return Refused(f"{member.url}{path}: {self.text(ended)}")
        fault = ended if isinstance(ended, Fault) else Fault(ended.reason, *ended.said)
        rest = LONGEST_REST if isinstance(fault, OtherModel) else self.server.backoff
        record.fail(began, self.text(fault), rest, fault.wait)
        return fault

    async def prove(self, request: ServedRequest[Any]) -> None:
        """Send the first request to each of several servers before any other is sent.

        One that fails is set aside. So a server of another model or protocol is refused before
        anything is scored.

        Raises:
            Refused: a server refused, or serves another model; its text begins with the address.
        """
        if not self.has_several or not self._unproved():
            return
        async with self._proving:
            try:
                await together([partial(self._prove, each, request) for each in self._unproved()])
            except Refused:
                self.records.forget()  # which of them is right is not known
                raise

    def _unproved(self) -> list[Member]:
        return [each for each in self.members if not (each.record.is_proved or each.record.faults)]

    async def _prove(self, member: Member, request: ServedRequest[Any]) -> None:
        first = ServedRequest(request.path, request.content, request.read, request.ends)
        try:
            async with self.slot():
                await self.send(member, first)
        except Fault:
            return  # it is set aside

    async def _check_model(self, member: Member, began: float) -> None:
        """Ask a server which models it serves: in each stream once, and again after a fault.

        Args:
            member: the server.
            began: when the request was sent that needs to know.

        Raises:
            Refused: it serves another model.
            Fault: the same, of a server that is known; or no answer.
        """
        record = member.record
        if member.is_asked and record.is_proved:
            return
        async with member.asking:
            if record.failed_since(began):  # meanwhile, in the same question for another request
                raise Fault("{}", record.last_fault or "")
            if member.is_asked and record.is_proved:
                return
            found = await member.client.served_models()
            self._judge(member, found)
            record.models, member.is_asked = found, True

    def _agree(self, member: Member) -> None:
        """After a good answer: its server's models are those of all, unless others are.

        Raises:
            Refused, Fault: another server's good answer came first, and its models are others.
        """
        if self.model is None and self.records.agreed is None:
            self.records.agreed = member.record.models
        self._judge(member, member.record.models)

    def _judge(self, member: Member, found: frozenset[str] | None) -> None:
        """Refuse a server of another model; one that is known, by a fault.

        Raises:
            Refused, Fault: says which models it serves.
        """
        record = member.record
        kind = OtherModel if record.is_known else Refused
        if found is None:
            if record.models is not None:
                raise kind("no longer says which model it serves")
            return
        if self.model is not None:
            if self.model not in found:
                raise kind("serves the model {}, not {}", _listed(found), self.model)
        elif self.records.agreed not in (None, found):
            agreed = self.records.agreed
            like = (each.url for each in self.members if each.record.models == agreed)
            where = "".join(f" as {url}" for url in like if url != member.url)
            raise kind(f"serves the model {{}}, not {{}}{where}", _listed(found), _listed(agreed))

    def reasons(self, own: dict[str, str], path: str) -> str:
        """Why none of the servers answered: of each its address and its last fault.

        Args:
            own: the last fault of one request by address; for other servers, that of any request.
            path: the endpoint.
        """
        known = ((each.url, own.get(each.url) or each.record.last_fault) for each in self.members)
        return "; ".join(f"{url}{path}: {reason}" for url, reason in known if reason)

    def text(self, ended: Ended) -> str:
        """The reason why a request failed, in one line without the API key."""
        return ended.text(self.redact)


def _listed(models: frozenset[str] | None) -> str:
    return ", ".join(sorted(models or ())) or "none"
