"""One forward pass, by an attention mask, for a response with a branch after each prefix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise
from operator import add

import torch
from torch import Tensor

from stepcredit.signals.models.batching import padded_ids
from stepcredit.signals.models.causal import CausalLM
from stepcredit.signals.models.contexts import Trunk

PADDING = -2
TRUNK = -1


@dataclass(frozen=True)
class Branch:
    """Tokens placed after a prefix.

    Args:
        ids: token ids.
        first: index of the first token whose log-prob is wanted; all later ones are wanted too.
    """

    ids: tuple[int, ...]
    first: int

    @property
    def fed(self) -> int:
        """Tokens a model reads: the last is only predicted."""
        return len(self.ids) - 1

    @property
    def wanted(self) -> range:
        """Indices whose log-probs are wanted."""
        return range(self.first, len(self.ids))


@dataclass(frozen=True)
class Tree:
    """A trunk and a branch after each of its cuts.

    Args:
        trunk: prompt and response.
        branches: one per cut.
    """

    trunk: Trunk
    branches: tuple[Branch, ...]

    @property
    def starts(self) -> list[int]:
        """Where each branch begins in the packed forward; last, where the forward ends."""
        sizes = (branch.fed for branch in self.branches)
        return list(accumulate(sizes, initial=len(self.trunk.ids)))

    @property
    def longest_position(self) -> int:
        """Positions of the longest prefix with its branch."""
        return max(map(add, self.trunk.cuts, (branch.fed for branch in self.branches)))


def packed_log_probs(causal: CausalLM, trees: Sequence[Tree]) -> list[list[Tensor]]:
    """Log-probs of the branches' wanted tokens, all trees in one forward pass.

    A branch's tokens see only the trunk up to their cut and the branch itself; their positions are
    those that they would have after that prefix.

    Returns:
        One tensor per branch of each tree.
    """
    device = causal.model.device
    packed = [[*t.trunk.ids, *chain(*(b.ids[:-1] for b in t.branches))] for t in trees]
    inputs = padded_ids(packed, device)
    layout = _layout(trees, inputs["input_ids"].shape[1])
    inputs["attention_mask"] = _mask(layout, causal)
    inputs["position_ids"] = layout.position.to(device)
    places = [(row, *place) for row, tree in enumerate(trees) for place in _places(tree)]
    rows, columns, targets = torch.tensor(places, device=device).unbind(1)
    found = causal.log_probs(inputs, rows, columns, targets)
    parts = iter(found.split([len(b.wanted) for tree in trees for b in tree.branches]))
    return [list(islice(parts, len(tree.branches))) for tree in trees]


def unpacked_log_probs(causal: CausalLM, tree: Tree, cuts: Sequence[int]) -> list[Tensor]:
    """Log-probs of the branches' wanted tokens after some cuts, one row of a batch per cut.

    Args:
        causal: the model.
        tree: the tree whose prefixes are read.
        cuts: numbers of the cuts.

    Returns:
        One tensor per cut.
    """
    device = causal.model.device
    pairs = [(tree.trunk.cuts[cut], tree.branches[cut]) for cut in cuts]
    whole = [[*tree.trunk.ids[:size], *branch.ids[:-1]] for size, branch in pairs]
    places = [
        (row, size - 1 + token, branch.ids[token])
        for row, (size, branch) in enumerate(pairs)
        for token in branch.wanted
    ]
    rows, columns, targets = torch.tensor(places, device=device).unbind(1)
    found = causal.log_probs(padded_ids(whole, device), rows, columns, targets)
    return list(found.split([len(branch.wanted) for _, branch in pairs]))


def takes_tree_masks(causal: CausalLM) -> bool:
    """Whether packed log-probs equal those of one forward pass per prefix, tried on a few ids."""
    if causal.model.config._attn_implementation not in ("sdpa", "eager"):
        return False
    ids = tuple(range(min(9, causal.num_tokens)))
    branches = Branch(ids[-3:], first=1), Branch(ids[-2:], first=0), Branch(ids[-3:], first=1)
    tree = Tree(Trunk(ids[:6], (2, 4, 6)), branches)
    try:
        packed = torch.cat(packed_log_probs(causal, [tree])[0])
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return False
    plain = torch.cat(unpacked_log_probs(causal, tree, range(3)))
    tolerance = 1e-3 if causal.model.dtype == torch.float32 else 0.1
    return torch.allclose(packed, plain, rtol=0.0, atol=tolerance)


def _places(tree: Tree) -> Iterator[tuple[int, int]]:
    """(column before, token) of each wanted token of each branch."""
    for cut, start, branch in zip(tree.trunk.cuts, tree.starts, tree.branches, strict=False):
        for token in branch.wanted:
            yield start + token - 1 if token else cut - 1, branch.ids[token]


@dataclass(frozen=True)
class _Layout:
    """The layout of a packed batch, as (tree, place) tensors.

    Args:
        owner: the branch it belongs to, or the trunk, or padding.
        position: its position in its prefix with its branch.
        seen: how many of the trunk's tokens it sees.
    """

    owner: Tensor
    position: Tensor
    seen: Tensor


def _layout(trees: Sequence[Tree], width: int) -> _Layout:
    owner = torch.full((len(trees), width), PADDING)
    position, seen = torch.zeros_like(owner), torch.zeros_like(owner)
    for row, tree in enumerate(trees):
        size = len(tree.trunk.ids)
        owner[row, :size] = TRUNK
        position[row, :size] = torch.arange(size)
        seen[row, :size] = torch.arange(size) + 1
        for number, (start, end) in enumerate(pairwise(tree.starts)):
            cut = tree.trunk.cuts[number]
            owner[row, start:end] = number
            position[row, start:end] = cut + torch.arange(end - start)
            seen[row, start:end] = cut
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
