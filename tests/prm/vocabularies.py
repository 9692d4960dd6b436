"""Small tokenizers with each reward model's real special tokens, pre-tokenization and template."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "Janet's ducks lay 16 eggs per day.\n\nShe eats 3 eggs for breakfast, so 16 - 3 = 13.\n\n",
    "She sells the rest.\n\n13 * 2 = 26.\n\nThe answer is \\boxed{26}.\n\nThe café is open.\n\n",
    "Step 1: 2 + 2 = 4.\nStep 2: 4 - 1 = 3.\nSo the answer is 3.\n\n",
]
QWEN_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_PIECES = QWEN_PIECES.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
CHATML = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}"
    "{{- '<|im_start|>system\nPlease reason step by step, and put your final answer within "
    "\\\\boxed{}.<|im_end|>\n' }}"
    "{%- endif %}"
    "{%- for message in messages %}"
    "{%- if message['role'] != 'system' %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
LLAMA_CHAT = (
    "{{- bos_token }}{%- set system = '' %}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}"
    "{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{- 'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n' }}"
    "{{- system }}{{- '<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)


def byte_level(pieces: str, special: list[str], size: int = 420) -> Tokenizer:
    """Byte-level BPE, its merges trained on the corpus."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    return backend


@cache
def qwen(tags: tuple[str, ...] = ("<extra_0>",), bos: str | None = None) -> PreTrainedTokenizerFast:
    """As Qwen2.5's: ChatML, no first token, `<extra_0>`; with `bos`, as Skywork's."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *tags]
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(QWEN_PIECES, special),
        bos_token=bos,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML,
    )


@cache
def llama() -> PreTrainedTokenizerFast:
    """As Llama 3.1's: header turns with trimmed contents, a first token."""
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend = byte_level(LLAMA_PIECES, special)
    first = ("<|begin_of_text|>", backend.token_to_id("<|begin_of_text|>"))
    backend.post_processor = TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[first]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=LLAMA_CHAT,
    )


@cache
def mistral() -> PreTrainedTokenizerFast:
    """As Mistral's: words that begin with a space, bytes where there is no piece, a first token."""
    words = [
        "ки",
        "+",
        "-",
        "1",
        "2",
        "3",
        "4",
        "eggs",
        "lay",
        "the",
        "answer",
        "is",
        "Step",
        "She",
    ]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=520, special_tokens=[*special, *bytes_], show_progress=False
    )
    backend.train_from_iterator([" ".join([*words * 40, *"abcdefgh .:*="])], trainer)
    first = ("<s>", backend.token_to_id("<s>"))
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[first])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@cache
def policy() -> PreTrainedTokenizerFast:
    """A policy's: other merges and other ids than any reward model's here."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<end>"],
        show_progress=False,
    )
    backend.train_from_iterator(["the answer is eggs.\n\n so we sell eggs.\n\n"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
