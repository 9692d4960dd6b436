"""A forward pass without padding for small Llama models: fewer operations, over real tokens only.

Rows of a batch differ in length, and the padding between them is computed for nothing.
The weights, their names and the checkpoints stay those of `transformers`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.llama.modeling_llama import LlamaModel

from stepcredit.lab.decoder import check_llama, joined_gate_up, joined_qkv


def without_padding(model: Any) -> Any:
    """The same model, whose forward pass leaves padding out.

    Args:
        model: a `LlamaForCausalLM`; it is changed in place.

    Returns:
        The model. Logits of padding tokens are zero; those of other tokens, and all gradients, are
        equal up to rounding. A pass with a cache is that of `transformers`.

    Raises:
        StepCreditError: the model is not a Llama with one key head per query head.

    Example:
        >>> from stepcredit.lab.model import build_model
        >>> from stepcredit.lab.tokenizer import build_tokenizer
        >>> type(without_padding(build_model(build_tokenizer())).model).__name__
        'PackedLlama'
    """
    check_llama(model.config)
    model.model.__class__ = PackedLlama
    return model


class PackedLlama(LlamaModel):  # type: ignore[misc]
    """transformers' Llama decoder with a forward pass over the tokens that are present."""

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, **options: Any
    ) -> BaseModelOutputWithPast:
        """The last hidden states, (row, token, width); zero on padding.

        Args:
            input_ids: (row, token).
            attention_mask: (row, token), 0 on padding; the tokens present in a row are neighbours.
            options: of transformers' forward; if one is set, its own forward runs.
        """
        plain = input_ids is not None and attention_mask is not None and attention_mask.dim() == 2
        if not plain or any(value is not None and value is not False for value in options.values()):
            return super().forward(input_ids, attention_mask, **options)  # type: ignore[no-any-return]
        present = attention_mask.bool()
        kept = present.flatten().nonzero()[:, 0]
        rank = (attention_mask.cumsum(1) - 1).flatten()[kept]
        place = kept // present.shape[1] * present.shape[1] + rank
        x = self.embed_tokens(input_ids.flatten()[kept])
        angles = rank[:, None] * self.rotary_emb.inv_freq
        turns = torch.polar(torch.ones_like(angles), angles)[:, None, None]
        for layer in self.layers:
            x = self._layer(layer, x, turns, place, present.shape)
        x = rms_norm(x, x.shape[-1:], self.norm.weight, self.config.rms_norm_eps)
        found = x.new_zeros(present.numel(), x.shape[-1]).index_copy(0, kept, x)
        return BaseModelOutputWithPast(last_hidden_state=found.view(*present.shape, -1))

    def _layer(
        self, layer: Any, x: Tensor, turns: Tensor, place: Tensor, shape: torch.Size
    ) -> Tensor:
        """One layer on (present token, width); `place` is a token's, with each row moved to 0."""
        eps, size = self.config.rms_norm_eps, x.shape[-1:]
        normed = rms_norm(x, size, layer.input_layernorm.weight, eps)
        qkv = linear(normed, joined_qkv(layer.self_attn, self.config.num_attention_heads))
        qkv = qkv.view(len(x), 3, self.config.num_attention_heads, -1)
        pairs = torch.view_as_complex(qkv[:, :2].unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(pairs * turns).flatten(-2)
        rows = x.new_zeros(shape.numel(), *qkv.shape[1:])
        rows = rows.index_copy(0, place, torch.cat([turned, qkv[:, 2:]], dim=1))
        seen = _attend(*rows.unflatten(0, shape).permute(2, 0, 3, 1, 4))
        seen = seen.transpose(1, 2).reshape(shape.numel(), -1)[place]
        x = x + linear(seen, layer.self_attn.o_proj.weight)
        normed = rms_norm(x, size, layer.post_attention_layernorm.weight, eps)
        gate, up = linear(normed, joined_gate_up(layer.mlp)).chunk(2, dim=-1)
        return x + linear(silu(gate) * up, layer.mlp.down_proj.weight)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention on (row, head, token, size).

    What stands behind a row's last token is read by no token of the row.
    """
    tokens, shape = query.shape[-2], query.shape
    later = query.new_full((tokens, tokens), -torch.inf).triu(1)
    query, key, value = (part.flatten(0, 1) for part in (query * shape[-1] ** -0.5, key, value))
    return (torch.bmm(query, key.transpose(1, 2)) + later).softmax(-1).bmm(value).view(shape)
