"""Tokenizers of the three common kinds, trained on the spot, as a policy may have them."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Tom has 3 apples.\n\nSo he has 3 + 4 = 7 apples 🍎.\n\nThe naïve 日本語 answer is 7.\r\n\r\n",
    "don't stop. it 's 5, so 5 - 2 = 3!\n\n\n  Done  ",
]


@cache
def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges cross words and lines: it has tokens like `.\\n\\nThe`."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS * 2,
        trainers.BpeTrainer(
            vocab_size=330,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|end|>", "<|tool|>"],
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


@cache
def words_apart() -> PreTrainedTokenizerFast:
    """Byte-level BPE as GPT-2's: it never merges over the space between words."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS * 2,
        trainers.BpeTrainer(
            vocab_size=330,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|end|>"],
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")


@cache
def byte_fallback() -> PreTrainedTokenizerFast:
    """Metaspace with a token a byte for what it does not know, as Llama 2's."""
    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.train_from_iterator(
        CORPUS[1:],
        trainers.BpeTrainer(vocab_size=330, show_progress=False, special_tokens=special + bytes_),
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer = Tokenizer.from_str(_ordinary(backend.to_str(), special))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def _ordinary(saved: str, special: list[str]) -> str:
    """The byte tokens as ordinary ones: the trainer takes them for special."""
    import json

    state = json.loads(saved)
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in special]
    return json.dumps(state)


@cache
def word_pieces() -> PreTrainedTokenizerFast:
    """Word pieces, which forget what space there was."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(
        CORPUS * 2,
        trainers.WordPieceTrainer(
            vocab_size=200, show_progress=False, special_tokens=["[UNK]", "[SEP]"]
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", sep_token="[SEP]")


POLICIES = {
    "byte-level": byte_level,
    "words-apart": words_apart,
    "byte-fallback": byte_fallback,
    "word-pieces": word_pieces,
}
