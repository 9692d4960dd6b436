"""Tiny random reward models with the published heads and weight names, saved as checkpoints.

The classes are written from the models' own files and share nothing with the library.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    Qwen2Model,
    Qwen2PreTrainedModel,
)

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
}


class Qwen2ForProcessRewardModel(Qwen2PreTrainedModel):
    """The model of Qwen2.5-Math-PRM's `modeling_qwen2_rm.py`."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.model = Qwen2Model(config)
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
        self.post_init()

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Two logits a token."""
        return self.score(self.model(input_ids)[0])


class SkyworkPRM(nn.Module):
    """The model of skywork-o1-prm-inference's `prm_model.py`: a language model and a value head."""

    def __init__(self, language_model: Qwen2ForCausalLM, summary: nn.Linear) -> None:
        super().__init__()
        self.language_model, self.summary = language_model, summary

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """One value a token, from the last of the language model's hidden states."""
        output = self.language_model(input_ids, output_hidden_states=True)
        return self.summary(output.hidden_states[-1]).squeeze(-1)

    def save_pretrained(self, folder: Path) -> None:
        """As published: the language model's weights, and `v_head.summary.*` beside them."""
        self.language_model.save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        weights["v_head.summary.weight"] = self.summary.weight.detach()
        weights["v_head.summary.bias"] = self.summary.bias.detach()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        edit_config(folder, architectures=["Qwen2ForPrmModel"])


def build(protocol: str, vocabulary: int, **sizes: Any) -> Any:
    """A random model of a protocol's kind, its weights drawn from a fixed seed."""
    torch.manual_seed(7)
    settings = {**SIZES, "vocab_size": vocabulary, **sizes}
    if protocol in ("qwen2.5-math-prm", "reasonflux"):
        model: Any = Qwen2ForProcessRewardModel(Qwen2Config(**settings))
    elif protocol == "skywork":
        language_model = Qwen2ForCausalLM(Qwen2Config(**settings, tie_word_embeddings=False))
        model = SkyworkPRM(language_model, nn.Linear(settings["hidden_size"], 1))
    elif protocol == "math-shepherd":
        model = MistralForCausalLM(MistralConfig(**settings, sliding_window=None))
    elif protocol == "rlhflow":
        model = LlamaForCausalLM(LlamaConfig(**settings))
    elif protocol == "token-classifier":
        model = LlamaForTokenClassification(LlamaConfig(**settings, num_labels=2))
    else:
        model = Qwen2ForTokenClassification(Qwen2Config(**settings, num_labels=2))
    return model.eval()


def save(model: Any, tokenizer: Any, folder: Path, *, shards: bool = False) -> Path:
    """A checkpoint's folder: weights, config and tokenizer."""
    model.save_pretrained(folder, **({"max_shard_size": "30KB"} if shards else {}))
    tokenizer.save_pretrained(folder)
    if isinstance(model, Qwen2ForProcessRewardModel):
        code = "modeling_qwen2_rm.Qwen2ForProcessRewardModel"
        edit_config(folder, auto_map={"AutoModel": code, "AutoConfig": "configuration.RMConfig"})
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change a saved config."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def edit_weights(folder: Path, change: Any) -> None:
    """Change the weights of a checkpoint that is one file."""
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights), folder / "model.safetensors", metadata={"format": "pt"})
