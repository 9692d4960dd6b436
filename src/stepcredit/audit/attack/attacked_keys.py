"""Keys of responses, by which an audit knows that an attack is of the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from stepcredit.audit.attack.attack_plan import AttackedResponse


def response_key(group: str, fields: Mapping[str, Any]) -> str | None:
    """A digest of a row's group and text: its field `text`, or its tokens joined.

    Scores and other fields of the row don't change it.

    Args:
        group: label of its group.
        fields: of the row.

    Returns:
        16 characters; None for a row that has neither text nor tokens.

    Example:
        >>> response_key("1", {"text": "a b"}) == response_key("1", {"tokens": ["a ", "b"]})
        True
        >>> response_key("1", {"length": 3})
    """
    text = fields.get("text")
    if not isinstance(text, str):
        tokens = fields.get("tokens")
        if not isinstance(tokens, list):
            return None
        text = "".join(tokens)
    content = f"{len(group)}:{group}{text}".encode(errors="surrogatepass")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def attacked_key(attacked: AttackedResponse) -> str:
    """The key of a response that is attacked: of its row, or of the text that is scored.

    Args:
        attacked: the response.
    """
    own = response_key(attacked.group, attacked.fields)
    if own is not None:
        return own
    text = {"text": attacked.response.text}
    return response_key(attacked.group, text) or ""
