"""Fill a tokenizer's chat template; a failure is an error of one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepcredit.errors import SignalError


def apply_chat_template(tokenizer: Any, turns: Sequence[Any], **options: Any) -> Any:
    """`tokenizer.apply_chat_template`, with any failure as one error.

    The template comes with the checkpoint: transformers runs it in Jinja's sandbox, where it can
    still raise whatever its expressions can.

    Args:
        tokenizer: of transformers.
        turns: messages of role and content.
        options: further arguments of the tokenizer's method.

    Raises:
        SignalError: the tokenizer has no chat template, or it fails on these turns.

    Example:
        >>> class Tokenizer:
        ...     def apply_chat_template(self, turns):
        ...         return turns[0]["content"] / 2
        >>> apply_chat_template(Tokenizer(), [{"role": "user", "content": "?"}])
        Traceback (most recent call last):
        ...
        stepcredit.errors.SignalError: the chat template refuses the turns: unsupported operand \
type(s) for /: 'str' and 'int'
    """
    try:
        return tokenizer.apply_chat_template(turns, **options)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
    raise SignalError(f"the chat template refuses the turns: {reason}")


def chat_prompt_ids(tokenizer: Any, prompt: str) -> tuple[int, ...]:
    """The token ids of a prompt as a user's turn, up to where the model answers.

    Raises:
        SignalError: as in `apply_chat_template`.
    """
    turns = [{"role": "user", "content": prompt}]
    options = {"add_generation_prompt": True, "return_dict": True}
    return tuple(apply_chat_template(tokenizer, turns, **options)["input_ids"])
