"""`Cached`: a signal whose scores are kept on disk, so that nothing is scored twice."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from stepcredit.data.files.score_store import ScoreStore
from stepcredit.errors import SettingError
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import Grain, IndexedScores, Signal, check_scores


def key_of(signal: Signal, response: Response) -> bytes:
    """The key of a response's scores: a digest of the signal's identity and the response's content.

    Example:
        >>> from stepcredit.signals.signal_registry import signal
        >>> responses = [Response("?", "1 + 1 = 2", ((0, 9),), (9,), name=n) for n in "ab"]
        >>> len({key_of(signal("equations"), response) for response in responses})
        1
    """
    return _key(_spelled(signal.identity), signal.content(response))


@dataclass(frozen=True)
class Cached(Signal):
    """A signal whose scores are kept on disk and computed once.

    Each score is kept as soon as it is computed, so a run that was stopped continues where it was.
    The key is made of the signal's identity and the response's content, not of the response's name.

    Args:
        signal: a signal whose scores depend on one response alone.
        path: the file, created if it does not exist; several processes may share it.

    Raises:
        SettingError: the signal depends on the other responses.
        FileError: the file can't be opened, is of another kind, or is damaged.

    Example:
        >>> import tempfile
        >>> from stepcredit.signals.signal_registry import signal
        >>> cached = Cached(signal("equations"), Path(tempfile.mkdtemp()) / "scores.sqlite")
        >>> cached.scores([Response("?", "1 + 1 = <<1+1=2>>2", ((0, 18),), (18,))])
        [[1.0]]
    """

    signal: Signal
    path: str | Path

    def __post_init__(self) -> None:
        if not self.signal.cacheable:
            reason = f"the scores of {self.signal.name} depend on the other responses"
            raise SettingError(reason, field="cache")

    @property
    def grain(self) -> Grain:
        """As for the signal whose scores are kept."""
        return self.signal.grain

    @property
    def identity(self) -> dict[str, Any]:
        """As for the signal whose scores are kept."""
        return self.signal.identity

    @property
    def unknown_score(self) -> float | None:
        """As for the signal whose scores are kept."""
        return self.signal.unknown_score

    def content(self, response: Response) -> Any:
        """As for the signal whose scores are kept."""
        return self.signal.content(response)

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Yield the scores kept on disk, then the rest; equal responses are scored once."""
        identity = _spelled(self.identity)
        rows: dict[bytes, list[int]] = {}
        for index, response in enumerate(responses):
            rows.setdefault(_key(identity, self.content(response)), []).append(index)
        with ScoreStore(self.path) as store:
            kept = store.get(list(rows))
            for key, scores in kept.items():
                yield from ((index, scores) for index in rows[key])
            missing = [key for key in rows if key not in kept]
            uncached = [responses[rows[key][0]] for key in missing]
            may_leave_out = self.may_leave_out
            with _ended(self.signal.stream(uncached)) as stream:
                for place, scores in stream:
                    check_scores(uncached[place], scores, self.grain, may_leave_out)
                    store.put(missing[place], scores)
                    yield from ((index, scores) for index in rows[missing[place]])


@contextmanager
def _ended(stream: Iterator[IndexedScores]) -> Iterator[Iterator[IndexedScores]]:
    """Close a generator at the end of the block, so that no more requests are sent."""
    try:
        yield stream
    finally:
        if isinstance(stream, Generator):
            stream.close()


def _spelled(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _key(identity: bytes, content: Any) -> bytes:
    return sha256(sha256(identity).digest() + _spelled(content)).digest()
