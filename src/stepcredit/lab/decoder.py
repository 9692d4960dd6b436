"""A lean decoder over the weights of a Llama model: few large operations per token, no gradients.

`transformers` spends most of a token's time on a small model in Python. Here the projections of a
layer are joined, the norms' weights are part of them, and the cache of keys and values is allocated
once. The results equal those of the model's own forward pass up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, rms_norm, silu

from stepcredit.errors import StepCreditError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HIDDEN = -1e30
"""Added to the scores of hidden keys; finite, so that a row that sees nothing gives no NaN."""


class Layer(NamedTuple):
    """The projections of one layer; the weights of the norms before them are multiplied in."""

    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True)
class Decoder:
    """The weights of a model as they are now, laid out for decoding.

    Args:
        embedding: (vocabulary, width).
        layers: the projections of each layer.
        head: (vocabulary, width), with the last norm's weight.
        heads: attention heads of a layer.
        frequencies: (head size / 2,) of the rotary positions, in radians per token.
        eps: of the norms.
    """

    embedding: Tensor
    layers: tuple[Layer, ...]
    head: Tensor
    heads: int
    frequencies: Tensor
    eps: float

    @classmethod
    def of(cls, model: PreTrainedModel) -> Decoder:
        """The decoder of a model; later changes of the model's weights do not change it.

        Raises:
            StepCreditError: the model is not a Llama with one key head per query head.
        """
        config: Any = model.config
        check_llama(config)
        inner: Any = model.model
        return cls(
            embedding=inner.embed_tokens.weight.detach(),
            layers=tuple(_joined(layer, config) for layer in inner.layers),
            head=(model.lm_head.weight * inner.norm.weight).detach(),  # type: ignore[operator]
            heads=config.num_attention_heads,
            frequencies=inner.rotary_emb.inv_freq,
            eps=config.rms_norm_eps,
        )

    def cache(self, rows: int, positions: int) -> Tensor:
        """Space for keys and values: (layer, 2, row, head, position, head size), not filled."""
        size = 2 * self.frequencies.shape[0]
        return self.embedding.new_empty(len(self.layers), 2, rows, self.heads, positions, size)

    def logits(self, ids: Tensor, cache: Tensor, start: int, hidden: Tensor) -> Tensor:
        """Logits after the last of the given tokens; their keys and values go into the cache.

        Args:
            ids: (row, token), the tokens at the positions from `start` on.
            cache: of `cache`, filled up to `start`.
            start: position of the first token.
            hidden: (row, token or 1, start + tokens), added to the attention scores: 0 where a
                token sees a position, `HIDDEN` where not.

        Returns:
            (row, vocabulary).
        """
        end = start + ids.shape[1]
        angles = torch.outer(torch.arange(start, end, device=ids.device), self.frequencies)
        turns = torch.polar(torch.ones_like(angles), angles)[:, None, None]
        x = self.embedding[ids]
        for layer, kept in zip(self.layers, cache, strict=True):
            x = x + self._attention(layer, self._norm(x), kept, start, hidden, turns)
            gate, up = linear(self._norm(x), layer.gate_up).chunk(2, dim=-1)
            x = x + linear(silu(gate) * up, layer.down)
        return linear(self._norm(x[:, -1]), self.head)

    def _norm(self, x: Tensor) -> Tensor:
        return rms_norm(x, x.shape[-1:], eps=self.eps)

    def _attention(
        self, layer: Layer, x: Tensor, kept: Tensor, start: int, hidden: Tensor, turns: Tensor
    ) -> Tensor:
        rows, tokens, width = x.shape
        qkv = linear(x, layer.qkv).view(rows, tokens, 3, self.heads, -1)
        pairs = torch.view_as_complex(qkv[:, :, :2].unflatten(-1, (-1, 2)))
        query, key = torch.view_as_real(pairs * turns).flatten(-2).permute(2, 0, 3, 1, 4)
        end = start + tokens
        kept[0, :, :, start:end] = key
        kept[1, :, :, start:end] = qkv[:, :, 2].transpose(1, 2)
        keys, values = kept.flatten(1, 2)[:, :, :end]
        scores = torch.bmm(query.flatten(0, 1), keys.transpose(1, 2))
        shares = (scores.unflatten(0, (rows, -1)) + hidden[:, None]).softmax(-1)
        seen = torch.bmm(shares.flatten(0, 1), values).unflatten(0, (rows, -1))
        return linear(seen.transpose(1, 2).reshape(rows, tokens, width), layer.out)


def check_llama(config: Any) -> None:
    """Refuse a model whose layers are not those of a Llama with one key head per query head.

    Raises:
        StepCreditError: names the architecture.
    """
    if config.model_type != "llama" or config.num_key_value_heads != config.num_attention_heads:
        reason = f"expected a Llama with as many key heads as heads, got {config.model_type!r}"
        raise StepCreditError(reason, field="model")


def joined_qkv(attention: Any, heads: int) -> Tensor:
    """The weights of queries, keys and values in one, (3 x width, width), for `torch.polar` turns.

    Llama rotates feature i of a head with feature i + half. Here the two are neighbours, the parts
    of one complex number; the same order of queries and keys leaves their products unchanged.
    """
    query, key = (
        weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)
        for weight in (attention.q_proj.weight, attention.k_proj.weight)
    )
    return torch.cat([query, key, attention.v_proj.weight])


def joined_gate_up(mlp: Any) -> Tensor:
    """The weights of gate and up in one, (2 x inner width, width)."""
    return torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])


def _joined(layer: Any, config: Any) -> Layer:
    """The projections of a layer of transformers' Llama, with the norms' weights in them."""
    attention = layer.self_attn
    qkv = joined_qkv(attention, config.num_attention_heads).detach().clone()
    qkv[: config.hidden_size] *= attention.head_dim**-0.5
    return Layer(
        qkv=qkv * layer.input_layernorm.weight.detach(),
        out=attention.o_proj.weight.detach(),
        gate_up=(joined_gate_up(layer.mlp) * layer.post_attention_layernorm.weight).detach(),
        down=layer.mlp.down_proj.weight.detach(),
    )
