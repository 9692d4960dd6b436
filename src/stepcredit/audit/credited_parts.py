"""Batches in parts of whole groups, and methods that credit these parts, with shared work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from stepcredit.credit.blocks import Blocks
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.methods.pass_ import PASS
from stepcredit.credit.metrics.leave_one_out import treats_groups_apart
from stepcredit.credit.overflow import refuse_overflow
from stepcredit.credit.stages.batch_norm import Moments
from stepcredit.credit.stages.process_streams import process_signals
from stepcredit.data.advantages import Advantages
from stepcredit.data.rollouts import Rollouts

Credited = Callable[[Rollouts], Mapping[str, Advantages]]
"""What gives, for whole groups, the advantages of some methods by name."""
CreditedPart = tuple[Rollouts, Int[Tensor, " rollout"], Sequence[Credited]]
"""A part of a batch, its rows in the batch, and what credits it and versions of it."""


def parts_and_credits(
    methods: Mapping[str, Estimator], rollouts: Rollouts
) -> Iterator[CreditedPart]:
    """The parts on which methods are run: blocks of groups, so that memory stays small.

    A method whose groups depend on one another gets the whole batch as one part.

    Args:
        methods: by name.
        rollouts: the batch; each method can run on it.

    Example:
        >>> import stepcredit as sc
        >>> r = sc.Rollouts(["a", "b", "a"], lengths=[1, 1, 1], outcome=[1.0, 1.0, 0.0])
        >>> [(part, rows, (credit,))] = parts_and_credits({"rloo": sc.RLOO()}, r)
        >>> rows.tolist(), credit(part)["rloo"].packed().tolist()
        ([0, 2, 1], [1.0, -1.0, 0.0])
    """
    apart = {name: each for name, each in methods.items() if treats_groups_apart(each)}
    for method in apart.values():
        method.check(rollouts)
        method.check_streams(process_signals(rollouts))
    if apart:
        credits = _credits_of(apart)
        for block, rows in Blocks.of(rollouts).with_rows():
            yield block, rows, credits
    whole = [partial(_of_batch, name, each) for name, each in methods.items() if name not in apart]
    if whole:
        yield rollouts, torch.arange(rollouts.num_rollouts), whole


def _credits_of(methods: Mapping[str, Estimator]) -> list[Credited]:
    """What credits blocks; methods of PASS that differ in k alone share their process part."""
    families: list[dict[str, PASS]] = []
    others: list[Credited] = []
    for name, method in methods.items():
        if type(method) is not PASS:
            others.append(partial(_of_block, name, method))
            continue
        same = (each for each in families if _differs_in_k(method, next(iter(each.values()))))
        family = next(same, None)
        if family is None:
            families.append(family := {})
        family[name] = method
    return [*(partial(_of_exponents, family) for family in families), *others]


def _differs_in_k(one: PASS, other: PASS) -> bool:
    return replace(one, k=other.k) == other


def _of_batch(name: str, method: Estimator, rollouts: Rollouts) -> dict[str, Advantages]:
    return {name: method(rollouts)}


def _of_block(name: str, method: Estimator, block: Rollouts) -> dict[str, Advantages]:
    return {name: method(block, moments=Moments())}


def _of_exponents(family: Mapping[str, PASS], block: Rollouts) -> dict[str, Advantages]:
    methods = list(family.values())
    credits = methods[0].credits_at([method.k for method in methods], block)
    pairs = zip(methods, credits, strict=True)
    found = [method.advantages_of(credit, block) for method, credit in pairs]
    for advantages in found:
        refuse_overflow(advantages.values, advantages.chunks)
    return dict(zip(family, found, strict=True))
