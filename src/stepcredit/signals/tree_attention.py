"""One forward for a response and a branch after each of its prefixes, by a mask over all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stepcredit.signals.causal import CausalLM, padded_ids
from stepcredit.signals.contexts import Trunk

PADDING = -2
TRUNK = -1


@dataclass(frozen=True)
class Tree:
    """A trunk and the same branch after each of its cuts.

    Args:
        trunk: prompt and response.
        branch: token ids.
        first: index of the branch's first token whose log-prob is wanted.
    """

    trunk: Trunk
    branch: tuple[int, ...]
    first: int

    @property
    def fed(self) -> int:
        """Branch tokens a model reads: the last is only predicted."""
        return len(self.branch) - 1

    @property
    def packed_length(self) -> int:
        """Tokens of the packed forward."""
        return len(self.trunk.ids) + len(self.trunk.cuts) * self.fed

    @property
    def reach(self) -> int:
        """Positions of the longest prefix with its branch."""
        return self.trunk.cuts[-1] + self.fed

    @property
    def wanted(self) -> range:
        """Branch indices whose log-probs are wanted."""
        return range(self.first, len(self.branch))


def packed_log_probs(causal: CausalLM, trees: Sequence[Tree]) -> list[Tensor]:
    """Log-probs of the branches' wanted tokens, all trees in one forward.

    A branch's tokens see the trunk up to its cut and themselves, at the positions they would have
    there.

    Returns:
        (cut, wanted token) of each tree.
    """
    device = causal.model.device
    packed = [[*tree.trunk.ids, *tree.branch[:-1] * len(tree.trunk.cuts)] for tree in trees]
    inputs = padded_ids(packed, device)
    layout = _layout(trees, inputs["input_ids"].shape[1])
    inputs["attention_mask"] = _mask(layout, causal)
    inputs["position_ids"] = layout.position.to(device)
    places = torch.tensor(
        [
            (row, *place)
            for row, tree in enumerate(trees)
            for cut in range(len(tree.trunk.cuts))
            for place in _places(tree, cut)
        ],
        device=device,
    )
    rows, columns, targets = places.unbind(1)
    found = causal.log_probs(inputs, rows, columns, targets)
    sizes = [len(tree.trunk.cuts) * len(tree.wanted) for tree in trees]
    return [
        part.view(-1, len(tree.wanted))
        for part, tree in zip(found.split(sizes), trees, strict=True)
    ]


def unpacked_log_probs(causal: CausalLM, tree: Tree, cuts: Sequence[int]) -> Tensor:
    """Log-probs of the branch's wanted tokens after some cuts, one row of the forward each.

    Args:
        causal: the model.
        tree: whose prefixes are read.
        cuts: which of them.

    Returns:
        (cut, wanted token).
    """
    device = causal.model.device
    sizes = [tree.trunk.cuts[cut] for cut in cuts]
    inputs = padded_ids([[*tree.trunk.ids[:size], *tree.branch[:-1]] for size in sizes], device)
    places = [
        (row, size - 1 + token, tree.branch[token])
        for row, size in enumerate(sizes)
        for token in tree.wanted
    ]
    rows, columns, targets = torch.tensor(places, device=device).unbind(1)
    return causal.log_probs(inputs, rows, columns, targets).view(len(cuts), -1)


def takes_tree_masks(causal: CausalLM) -> bool:
    """Whether a model's packed log-probs are those of one forward a prefix, tried on a few ids."""
    if causal.model.config._attn_implementation not in ("sdpa", "eager"):
        return False
    ids = tuple(range(min(9, causal.num_tokens)))
    tree = Tree(Trunk(ids[:6], (2, 4, 6)), ids[-3:], first=1)
    try:
        packed = packed_log_probs(causal, [tree])[0]
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False
    plain = unpacked_log_probs(causal, tree, range(3))
    tolerance = 1e-3 if causal.model.dtype == torch.float32 else 0.1
    return torch.allclose(packed, plain, rtol=0.0, atol=tolerance)


def _places(tree: Tree, cut: int) -> list[tuple[int, int]]:
    """(column before, token) of each wanted token of one branch."""
    start = len(tree.trunk.ids) + cut * tree.fed
    before = tree.trunk.cuts[cut] - 1
    return [(start + token - 1 if token else before, tree.branch[token]) for token in tree.wanted]


@dataclass(frozen=True)
class _Layout:
    """Of each place of a packed batch, as (tree, place) tensors.

    Args:
        owner: the branch it belongs to, or the trunk, or padding.
        position: in its own prefix with its branch.
        seen: how many of the trunk's tokens it sees.
    """

    owner: Tensor
    position: Tensor
    seen: Tensor


def _layout(trees: Sequence[Tree], width: int) -> _Layout:
    owner = torch.full((len(trees), width), PADDING)
    position, seen = torch.zeros_like(owner), torch.zeros_like(owner)
    for row, tree in enumerate(trees):
        size, end, cuts = len(tree.trunk.ids), tree.packed_length, torch.tensor(tree.trunk.cuts)
        owner[row, :size] = TRUNK
        position[row, :size] = torch.arange(size)
        seen[row, :size] = torch.arange(size) + 1
        owner[row, size:end] = torch.arange(len(cuts)).repeat_interleave(tree.fed)
        position[row, size:end] = (cuts[:, None] + torch.arange(tree.fed)).flatten()
        seen[row, size:end] = cuts.repeat_interleave(tree.fed)
    return _Layout(owner, position, seen)


def _mask(layout: _Layout, causal: CausalLM) -> Tensor:
    """(tree, 1, query, key): a place sees the trunk before it, and its own branch up to itself."""
    device = causal.model.device
    owner, position, seen = (
        values.to(device) for values in (layout.owner, layout.position, layout.seen)
    )
    visible = (owner[:, :, None] == owner[:, None]) & (position[:, None] <= position[:, :, None])
    visible |= (owner[:, None] == TRUNK) & (position[:, None] < seen[:, :, None])
    if causal.model.config._attn_implementation == "sdpa":
        return visible[:, None]
    lowest = torch.finfo(causal.model.dtype).min
    return torch.where(visible[:, None], 0.0, lowest).to(causal.model.dtype)
