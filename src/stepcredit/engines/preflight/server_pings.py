"""Whether anything answers at a server's address."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.errors import EngineError
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.signal import distinct_signals

SECONDS = 5.0
"""How long a server may take to answer."""


def ping(url: str) -> str:
    """Ask a server for `/health`; any answer will do, an error of HTTP too.

    Args:
        url: its address, http or https.

    Returns:
        What was found, for a person.

    Raises:
        EngineError: nothing answers; the reason names the address.

    Example:
        >>> ping("http://127.0.0.1:9")
        Traceback (most recent call last):
        stepcredit.errors.EngineError: http://127.0.0.1:9: does not answer: connection refused
    """
    try:
        with urlopen(Request(f"{url.rstrip('/')}/health"), timeout=SECONDS):
            return "answers"
    except HTTPError:
        return "answers"
    except (OSError, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
        raise EngineError(f"{url}: does not answer: {reason.lower()}") from None


def ping_servers(found: Preflight, sources: Mapping[str, Any], place: str) -> None:
    """Ping the servers of signals that can't be scored because of another fault.

    Args:
        found: gets the results.
        sources: signals or callables, by stream or model.
        place: their setting.
    """
    parts = distinct_signals(list(sources.values()))
    urls = [url for part in parts if isinstance(part, Served) for url in part.urls]
    for url in sorted(set(urls)):
        found.run(f"server at {url}", partial(ping, url), at=place)
