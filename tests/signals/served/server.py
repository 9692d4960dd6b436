"""A server that speaks vLLM's, OpenAI's and SGLang's protocols, and misbehaves on demand.

Run as a script it prints its port and serves until it is killed. `POST /plan` sets what it does and
forgets what it counted; `GET /count` tells what it counted. Its "models" are formulas of what they
are asked, given in `answers.py` beside it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import answers

DEFAULTS: dict[str, Any] = {
    "share": 0.0,  # of the distinct questions, how many get a fault the first time
    "kinds": [],  # of those faults
    "times": 1,  # how often such a question gets its fault
    "cursed": None,  # a question whose body holds this gets a fault every time ...
    "curse": "error",  # ... of this kind
    "delay": 0.0,  # seconds before every answer
    "wait": 0,  # seconds that the fault "busy" asks to wait
    "fail": None,  # [status, body, headers]: the answer to everything
    "models": None,  # the names that /v1/models lists; None: there is no such list
    "serves": None,  # the only model that requests may name
    "paths": None,  # the only endpoints that there are
    "dies_after": None,  # the process ends with the request after so many
    "setting": {},  # how the models were started: step_tag_id, alphabet ...
}


@dataclass
class State:
    """What the server does, and what it has seen."""

    plan: dict[str, Any] = field(default_factory=lambda: dict(DEFAULTS))
    asked: dict[bytes, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    running: int = 0
    most: int = 0
    flooded: int = 0
    last: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Serving:
    """What is now, and the connections open in all."""

    state: State = field(default_factory=State)
    open: int = 0


NOW = Serving()


def counted() -> dict[str, Any]:
    """What `/count` tells; the connection that asks is left out."""
    state = NOW.state
    return {
        "requests": sum(state.asked.values()),
        "questions": len(state.asked),
        "faults": state.faults,
        "connections": state.connections - 1,
        "open": NOW.open - 1,
        "running": state.running,
        "most": state.most,
        "flooded": state.flooded,
        "last": state.last,
        "headers": state.headers,
    }


def fault_of(plan: dict[str, Any], body: bytes, times: int) -> str | None:
    """The fault that a question gets when it is asked for the n-th time, from 0."""
    if plan["cursed"] and plan["cursed"].encode() in body:
        return plan["curse"]
    if times >= plan["times"] or not plan["kinds"]:
        return None
    digest = sha256(body).digest()
    lot = int.from_bytes(digest[:4]) / 2**32
    return plan["kinds"][digest[4] % len(plan["kinds"])] if lot < plan["share"] else None


async def request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Path, headers and body of the next request on a connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
    return (
        first.split()[1],
        headers,
        await reader.readexactly(int(headers.get("content-length", 0))),
    )


def reply(writer: asyncio.StreamWriter, status: int, body: bytes, **headers: Any) -> bytes:
    """An answer's bytes."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/json"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def drip(writer: asyncio.StreamWriter) -> None:
    """A body that never ends, one byte at a time, until the client is gone."""
    writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(writer: asyncio.StreamWriter) -> None:
    """A body that never ends, as fast as it is read, until the client is gone."""
    writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b" " * 0x1000 + b"\r\n")
        NOW.state.flooded += 0x1000
        await writer.drain()


async def answer(
    state: State,
    path: str,
    body: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    """Answer, or misbehave; whether the connection goes on."""
    times = state.asked.get(body, 0)
    state.asked[body] = times + 1
    plan, question = state.plan, json.loads(body)
    state.last = question
    if plan["dies_after"] is not None and sum(state.asked.values()) > plan["dies_after"]:
        os._exit(1)
    missing = missing_here(plan, path, question)
    if missing:
        writer.write(reply(writer, 404, json.dumps({"error": {"message": missing}}).encode()))
        return True
    fault = fault_of(plan, body, times)
    if fault:
        state.faults[fault] = state.faults.get(fault, 0) + 1
    await asyncio.sleep(plan["delay"] + (0.1 if fault == "late" else 0.0))
    if plan["fail"]:
        status, text, headers = plan["fail"]
        writer.write(reply(writer, status, text.encode(), **headers))
        return True
    if fault == "refuse":
        off = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, off)
        return False
    if fault == "drip":
        await drip(writer)
    if fault == "flood":
        await flood(writer)
    if fault == "hang":
        await reader.read(1)
        return False
    if fault in ("error", "busy"):
        status = 503 if fault == "error" else 429
        said = json.dumps({"error": {"message": f"{fault} on\npurpose", "code": status}})
        writer.write(reply(writer, status, said.encode(), Retry_After=plan["wait"]))
        return True
    found = answers.ENDPOINTS[path](question, plan["setting"], fault)
    whole = reply(writer, 200, b"<html>" if fault == "garbage" else json.dumps(found).encode())
    writer.write(whole if fault != "torn" else whole[:-10])
    return fault != "torn"


def missing_here(plan: dict[str, Any], path: str, question: dict[str, Any]) -> str | None:
    """What the server says of an endpoint or a model that it does not have."""
    if plan["paths"] is not None and path not in plan["paths"]:
        return "Not Found"
    model = question.get("model")
    if plan["serves"] is not None and model != plan["serves"]:
        return f"The model `{model}` does not exist."
    return None


async def counted_answer(
    path: str,
    headers: dict[str, str],
    body: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    """An answer, counted while it is under way."""
    state = NOW.state
    state.headers = headers
    state.running += 1
    state.most = max(state.most, state.running)
    try:
        return await answer(state, path, body, reader, writer)
    finally:
        state.running -= 1


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, to its end."""
    NOW.state.connections += 1
    NOW.open += 1
    try:
        goes_on = True
        while goes_on:
            path, headers, body = await request(reader)
            if path == "/plan":
                NOW.state = State(DEFAULTS | json.loads(body))
                writer.write(reply(writer, 200, b"{}"))
            elif path == "/count":
                writer.write(reply(writer, 200, json.dumps(counted()).encode()))
            elif path == "/v1/models":
                names = NOW.state.plan["models"]
                listed = json.dumps({"data": [{"id": name} for name in names or ()]}).encode()
                writer.write(reply(writer, 404 if names is None else 200, listed))
            else:
                goes_on = await counted_answer(path, headers, body, reader, writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        NOW.open -= 1
        writer.close()


async def main() -> None:
    """Serve on a free port, or on the one that is given."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    server = await asyncio.start_server(serve, "127.0.0.1", port, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
