"""API keys: read from the environment, and removed from the messages of servers and libraries."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from html import escape
from string import ascii_lowercase, ascii_uppercase
from urllib.parse import quote, quote_plus

from stepcredit.errors import SettingError

LONGEST_MESSAGE = 300
"""Characters of a server's text that an error shows."""
HIDDEN = "***"
PIECE = 8
"""Any run of so many characters of a key is hidden."""
READ = 20_000
"""Characters of a server's text that are processed; the rest is cut off first."""
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def api_key(variable: str | None) -> str | None:
    """The key in an environment variable, without space around it.

    Raises:
        SettingError: the variable is not set or empty, or its value can't stand in a header.
            Neither is shown: what was given as the name may be the key.

    Example:
        >>> os.environ["SOME_KEY"] = "sk-secret\\n"
        >>> api_key("SOME_KEY")
        'sk-secret'
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        reason = "no environment variable of this name holds a key (the name is not shown: it may "
        raise SettingError(reason + "be the key)", field="api_key_env")
    if not all("!" <= letter <= "~" for letter in key):
        reason = "the key in this environment variable holds a character that is no printable ASCII"
        raise SettingError(reason + " (the key is not shown)", field="api_key_env")
    return key


class Redactor:
    """Prepares a server's text for a message: without the key, on one line, not too long.

    Hidden are the key and parts of at least 8 characters of it, also as JSON, Python, HTML and URLs
    spell it and as base64 has it at any place of a longer text, in upper or lower case. A key
    of fewer than 8 characters is hidden only as a whole.

    Args:
        key: the API key; None hides nothing.

    Example:
        >>> Redactor("sk-secret-1")("wrong key:\\nsk-secret-1 \\x1b[1m")
        'wrong key: *** \\\\x1b[1m'
    """

    def __init__(self, key: str | None) -> None:
        self._pieces: dict[int, set[str]] = {}
        self._folds = key is not None and len(key) >= PIECE
        for form in _spellings(key) if key else ():
            form = self._folded(form)
            size = min(PIECE, len(form)) if self._folds else len(form)
            found = {form[i : i + size] for i in range(len(form) - size + 1)}
            self._pieces.setdefault(size, set()).update(found)

    def __call__(self, said: str) -> str:
        """The text without the key, on one line, cut to 300 characters."""
        line = _one_line(self.hide(said[:READ]))
        if len(said) > READ:  # a part of the key may stand at the cut
            line = line[: -max(self._pieces, default=1)] + "…"
        return shortened(line)

    def _folded(self, text: str) -> str:
        return text.translate(_LOWER) if self._folds else text

    def hide(self, text: str) -> str:
        """The whole text without the key."""
        folded, hidden = self._folded(text), bytearray(len(text))
        for size, pieces in self._pieces.items():
            for start in range(len(text) - size + 1):
                if folded[start : start + size] in pieces:
                    hidden[start : start + size] = b"\1" * size
        parts, end = [], 0
        while (start := hidden.find(1, end)) >= 0:
            parts += [text[end:start], HIDDEN]
            end = hidden.find(0, start)
            end = len(text) if end < 0 else end
        return "".join([*parts, text[end:]])


def shortened(text: str) -> str:
    """A text on one line, cut to 300 characters, with control characters and the like spelled out.

    Example:
        >>> shortened("a \\x1b[1m\\n\\ud800 é")
        'a \\\\x1b[1m \\\\ud800 é'
    """
    line = _one_line(text)
    if len(line) > LONGEST_MESSAGE:
        line = line[: LONGEST_MESSAGE - 1] + "…"
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _spellings(key: str) -> Iterator[str]:
    yield from (key, json.dumps(key)[1:-1], repr(key)[1:-1], escape(key))
    yield from (quote(key), quote(key, safe=""), quote_plus(key), key.replace("/", "\\/"))
    if len(key) < PIECE:
        yield b64encode(key.encode()).decode()
        return
    for place in range(3):  # base64 of the key, wherever it begins in what was encoded
        whole = b64encode(b"\0" * place + key.encode()).decode().rstrip("=")
        known = 4 * (place + len(key)) // 3  # characters that hold nothing after the key
        inner = whole[(0, 2, 3)[place] : known]
        yield from (inner, inner.replace("+", "-").replace("/", "_"))
