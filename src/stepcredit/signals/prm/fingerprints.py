"""What tells models and tokenizers apart, so that a cache never answers for the wrong one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stepcredit.errors import SignalError


def fingerprint_of_source(source: str, revision: str | None = None) -> str:
    """A checkpoint's fingerprint, without reading its weights.

        folder          names and contents of its JSON, names, sizes and times of its other files
        name on the Hub the commit that the revision stands for

    Args:
        source: a folder or a name on the Hub.
        revision: branch, tag or commit on the Hub.

    Raises:
        SignalError: there is no such checkpoint.
    """
    folder = Path(source)
    if not folder.is_dir():
        return _commit(source, revision)
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{file.name}\n".encode())
        if file.suffix == ".json":
            digest.update(file.read_bytes())
        else:
            stat = file.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _commit(source: str, revision: str | None) -> str:
    from transformers.utils import cached_file
    from transformers.utils.hub import extract_commit_hash

    try:
        commit = extract_commit_hash(cached_file(source, "config.json", revision=revision), None)
    except (OSError, ValueError) as error:
        reason = f"does not load: {str(error).strip().partition(chr(10))[0]}"
        raise SignalError(reason, place=source) from error
    return commit or str(revision)


def fingerprint_of_model(model: nn.Module) -> str:
    """A loaded model's fingerprint: its weights' names, types and bytes.

    Example:
        >>> a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> fingerprint_of_model(a) == fingerprint_of_model(a) != fingerprint_of_model(b)
        True
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        flat = weight.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint_of_tokenizer(tokenizer: Any) -> str:
    """A loaded tokenizer's fingerprint: its rules, special tokens and chat template."""
    rules = [tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else tokenizer.get_vocab()]
    rules += [tokenizer.chat_template, str(tokenizer.special_tokens_map)]
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
