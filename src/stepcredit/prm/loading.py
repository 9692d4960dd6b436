"""Loads reward models from published checkpoints, heads included, without remote code."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepcredit.errors import SignalError
from stepcredit.prm.heads import Classifier, HeadedModel, TwoLayerHead, ValueHead, WordHead
from stepcredit.prm.protocol import Protocol
from stepcredit.requires import require
from stepcredit.signals.models.checkpoints import load_whole, loading, to_device

Scorer = HeadedModel | Classifier
PUBLISHED: dict[str, Callable[[int], nn.Module]] = {"two-layer": TwoLayerHead, "value": ValueHead}
"""Heads that transformers has no class for, by kind."""
RESCALED = ("final_logit_softcapping", "logit_scale", "logits_scaling")
"""Settings of language models that change the output layer's logits."""


def load_scorer(
    source: str,
    protocol: Protocol,
    tokenizer: Any,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
) -> Scorer:
    """Load a protocol's model, body and head, from a folder or by a name on the Hub.

    Args:
        source: the checkpoint: safetensors or pytorch files, whole or in shards.
        protocol: says which head the model has.
        tokenizer: gives the token ids of the words that a head of words reads.
        dtype: of the body's weights: "auto" (the checkpoint's), "float32", "bfloat16" or "float16".
        device: "auto" (a GPU where there is one), or one of torch's.
        revision: branch, tag or commit on the Hub.

    Returns:
        The model, in evaluation mode on its device.

    Raises:
        MissingExtra: transformers is not installed.
        SettingError: torch has no such device.
        SignalError: the checkpoint does not load, or lacks weights; the error names them.
    """
    require("signals", "transformers")
    import transformers

    rest: dict[str, Any] = {"dtype": dtype, "revision": revision}
    with loading(source):
        if protocol.head in PUBLISHED:
            body = load_whole(transformers.AutoModel, source, **rest)
            head = PUBLISHED[protocol.head](body.config.hidden_size)
            _fill(head, read_weights(source, list(head.state_dict()), revision))
            scorer: Scorer = HeadedModel(body, head)
        elif protocol.head == "words":
            model = load_whole(transformers.AutoModelForCausalLM, source, **rest)
            scorer = attach(model, protocol, tokenizer)
        else:
            model = load_whole(transformers.AutoModelForTokenClassification, source, **rest)
            scorer = attach(model, protocol, tokenizer)
    return to_device(scorer, device).eval()


def attach(model: nn.Module, protocol: Protocol, tokenizer: Any) -> Scorer:
    """Prepare a loaded model for a protocol.

    Args:
        model: a `HeadedModel` or `Classifier`; a causal language model for a head of words; a
            token classifier for one of classes.
        protocol: its input and output format.
        tokenizer: gives the token ids of the words that a head of words reads.

    Raises:
        SignalError: the protocol can't read the model.
    """
    if isinstance(model, HeadedModel | Classifier):
        return model
    config: Any = model.config
    if protocol.head == "words" and getattr(model, "lm_head", None) is not None:
        rescaled = [name for name in RESCALED if getattr(config, name, None) not in (None, 1)]
        if rescaled:
            raise SignalError(f"{protocol.name} can't read a model with {rescaled[0]}")
        output = model.get_output_embeddings()  # type: ignore[operator]
        return HeadedModel(model.base_model, WordHead(output, protocol.words(tokenizer)))  # type: ignore[arg-type]
    if protocol.head == "classes" and type(model).__name__.endswith("ForTokenClassification"):
        if config.num_labels != 2:
            raise SignalError(f"{protocol.name} needs two classes, not {config.num_labels}")
        return Classifier(model)
    wanted = {"words": "a causal language model", "classes": "a token classifier"}
    expected = wanted.get(protocol.head, "a HeadedModel")
    raise SignalError(f"{protocol.name} needs {expected}, not a {type(model).__name__}")


def read_weights(
    source: str, names: Sequence[str], revision: str | None = None
) -> dict[str, Tensor]:
    """Read some weights of a checkpoint by their names, without the others.

    Args:
        source: a folder or a name on the Hub; safetensors files are read first, else pytorch files.
        names: the weights' names, as published.
        revision: branch, tag or commit on the Hub.

    Raises:
        SignalError: the checkpoint lacks some of them; the error names them.
    """
    from transformers.utils import cached_file

    def path(name: str) -> str | None:
        found: str | None = cached_file(
            source, name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
        return found

    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = path(f"{whole}.index.json")
        shards = json.loads(Path(index).read_bytes())["weight_map"] if index else None
        if shards is None and path(whole) is None:
            continue
        files = {name: (shards or {}).get(name, None if shards else whole) for name in names}
        found: dict[str, Tensor] = {}
        for file in sorted({file for file in files.values() if file}):
            found |= _read(path(file), [name for name in names if files[name] == file])
        missing = sorted(set(names) - set(found))
        if missing:
            raise SignalError(f"lacks the weights {', '.join(missing)}")
        return found
    raise SignalError("has no weights: neither safetensors nor pytorch files")


def _read(file: str | None, names: Sequence[str]) -> dict[str, Tensor]:
    if file is None:
        return {}
    if file.endswith(".safetensors"):
        from safetensors import safe_open

        with safe_open(file, framework="pt") as weights:
            present = set(weights.keys())
            return {name: weights.get_tensor(name) for name in names if name in present}
    weights = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    return {name: weights[name] for name in names if name in weights}


def _fill(head: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, own in head.state_dict().items():
        if weights[name].shape != own.shape:
            reason = f"{name} is {list(weights[name].shape)}, where {list(own.shape)} is expected"
            raise SignalError(reason)
    head.load_state_dict(weights)
