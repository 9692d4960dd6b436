"""Whether two models read the same token ids the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from stepcredit.errors import SignalError
from stepcredit.signals.models.checkpoints import load_tokenizer, model_label


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer by id.

    Args:
        name: its name in messages.
        tokens: id -> token, added tokens included.
    """

    name: str
    tokens: Mapping[int, str]

    @classmethod
    def of(cls, tokenizer: Any, name: str | None = None) -> Vocabulary:
        """The vocabulary of a tokenizer, loaded or in a folder; a folder is read once.

        Raises:
            SignalError: it cannot be loaded.
        """
        in_folder = isinstance(tokenizer, str | Path)
        tokens = _in_folder(str(tokenizer)) if in_folder else _tokens(tokenizer)
        return cls(name or model_label(tokenizer), tokens)


@lru_cache(maxsize=8)
def _in_folder(source: str) -> Mapping[int, str]:
    return _tokens(load_tokenizer(source))


def _tokens(tokenizer: Any) -> Mapping[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def check_vocabulary(policy: Vocabulary, other: Vocabulary) -> None:
    """Refuse a model in which some id is another token than in the policy.

    The tokenizers' whole maps are compared; padding rows of the embedding are ignored.

    Raises:
        SignalError: the error names both models and the first token that differs.

    Example:
        >>> check_vocabulary(Vocabulary("mine", {0: "a", 1: "b"}), Vocabulary("big", {0: "a"}))
        Traceback (most recent call last):
        ...
        stepcredit.errors.SignalError: big: another vocabulary than mine's: token 1 is nothing, \
there 'b'
    """
    if policy.tokens == other.tokens:
        return
    ids = sorted(policy.tokens.keys() | other.tokens.keys())
    first = next(id for id in ids if policy.tokens.get(id) != other.tokens.get(id))
    here, there = (_shown(side.tokens.get(first)) for side in (other, policy))
    reason = f"another vocabulary than {policy.name}'s: token {first} is {here}, there {there}"
    raise SignalError(reason, field=other.name)


def _shown(token: str | None) -> str:
    return "nothing" if token is None else repr(token)
