"""The embedded task's tokenizer: one character per token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepcredit.requires import require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EOS, PAD, UNKNOWN = "$", "_", "?"
VOCABULARY = (*"0123456789+-*=k\n<>", EOS, PAD, UNKNOWN)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The task's tokenizer: one character per token, padding on the left.

    Returns:
        A fast tokenizer with `$` as the end of sequence, `_` as padding (a different token) and
        `?` for any other character. `AutoTokenizer` loads it if it is saved with a checkpoint.

    Raises:
        MissingExtra: transformers is not installed.

    Example:
        >>> tokenizer = build_tokenizer()
        >>> tokenizer.decode(tokenizer("3+4*2=").input_ids), len(tokenizer)
        ('3+4*2=', 21)
    """
    require("train", "transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {character: index for index, character in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )


def completion_text(completion_ids: Sequence[int], tokenizer: PreTrainedTokenizerFast) -> str:
    """Token ids as text, one character per token, special tokens included.

    Args:
        completion_ids: token ids.
        tokenizer: the task's tokenizer.

    Returns:
        A string as long as `completion_ids`.

    Example:
        >>> tokenizer = build_tokenizer()
        >>> completion_text(tokenizer("<4>$").input_ids, tokenizer)
        '<4>$'
    """
    return "".join(tokenizer.convert_ids_to_tokens(list(completion_ids)))
