"""Read the body of an answer up to a limit, and parse its JSON safely."""

from __future__ import annotations

import json
from typing import Any

import httpx

from stepcredit.signals.served.failures import Fault, Refused

DEEPEST = 100
"""The most levels of lists and objects in an answer."""
TOO_DEEP = f"the answer nests lists and objects more than {DEEPEST} deep"


async def body_of(answer: httpx.Response, limit: int) -> bytes:
    """The whole body of an answer, which must not be compressed.

    Raises:
        Refused: the body is longer than the limit, or compressed.
    """
    coding = answer.headers.get("Content-Encoding", "").strip()
    if coding.lower() not in ("", "identity"):
        raise Refused(
            "the answer is compressed ({}), although no compression was requested", coding
        )
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) > limit:
            raise Refused(f"the answer is longer than max_body allows: {limit} bytes")
    return bytes(body)


def parse_body(body: bytes) -> Any:
    """The JSON of a body: UTF-8, each member of an object once, at most 100 levels deep.

    Raises:
        Fault: it is something else.

    Example:
        >>> parse_body(b'{"data": [1.5, null]}')
        {'data': [1.5, None]}
    """
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise Fault("the answer is not JSON") from None
    except ValueError:
        raise Fault("the answer has a number of too many digits") from None
    except RecursionError:
        raise Fault(TOO_DEEP) from None
    if isinstance(found, list | dict) and _is_deeper(found, DEEPEST):
        raise Fault(TOO_DEEP)
    return found


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise Fault("the answer has an object with two members of one name")
    return found


def _is_deeper(value: list[Any] | dict[str, Any], levels: int) -> bool:
    """Whether lists and objects nest deeper than that; looked at level by level."""
    level: list[Any] = [value]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return False
    return True
