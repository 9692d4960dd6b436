"""The embedded tasks' tokenizers: one character, or one word, per token."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepcredit.requires import require

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EOS, PAD, UNKNOWN = "$", "_", "?"
MAX_LENGTH = 128
VOCABULARY = (*"0123456789+-*=k\n<>", EOS, PAD, UNKNOWN)


def build_tokenizer(max_length: int = MAX_LENGTH) -> PreTrainedTokenizerFast:
    """The tokenizer of arithmetic: one character per token, padding on the left.

    Args:
        max_length: most tokens of a prompt and its completion together.

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
    return _tokenizer(VOCABULARY, "", max_length)


def build_word_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of words that may hold spaces; the text is its tokens, one after another.

    Args:
        vocabulary: the tokens; none is the beginning of another one, so a text has one reading.

    Returns:
        A fast tokenizer as `build_tokenizer` gives; a character outside the vocabulary is `?`.

    Raises:
        MissingExtra: transformers is not installed.

    Example:
        >>> tokenizer = build_word_tokenizer([" Ann", "'s boss", ".", EOS, PAD, UNKNOWN])
        >>> tokenizer(" Ann's boss Ann.").input_ids
        [0, 1, 0, 2]
    """
    from tokenizers import Regex

    words = "|".join(map(re.escape, vocabulary))
    return _tokenizer(vocabulary, Regex(f"{words}|[\\s\\S]"), MAX_LENGTH)


def _tokenizer(vocabulary: Sequence[str], pattern: Any, max_length: int) -> PreTrainedTokenizerFast:
    require("train", "transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    numbered = {token: index for index, token in enumerate(vocabulary)}
    backend = Tokenizer(models.WordLevel(numbered, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=max_length,
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
