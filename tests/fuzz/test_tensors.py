"""Random containers into `Rollouts.from_padded` and `padded`: the right numbers, or one line."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import torch
from tests.fuzz.cases import CASES, generator

import stepcredit as sc
from stepcredit.errors import StepCreditError

DTYPES = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
)
VALUES = (0, 1, 1, 1, 2, -1, 0.5, -3.25, 1e30, 1e39, float("nan"), float("inf"), 200, 2**40)
ODD = (None, "x", 3, {}, [], [[]], object(), b"b", np.float32(1), [[None]], [["1"]], [[[1]]])


def table(rng: Random, rows: int, width: int, values: tuple[Any, ...]) -> Any:
    """A table in a random container: mostly of the right shape, sometimes of none."""
    if rng.random() < 0.05:
        return rng.choice(ODD)
    if rng.random() < 0.1:
        rows, width = rng.randint(0, 4), rng.randint(0, 5)
    lists = [[rng.choice(values) for _ in range(width)] for _ in range(rows)]
    return contained(rng, lists, rng.choice(DTYPES))


def contained(rng: Random, lists: Any, dtype: torch.dtype) -> Any:
    """The lists in one container or another."""
    kind = rng.randrange(10)
    if kind == 0:
        return lists
    if kind == 1 and lists and isinstance(lists[0], list):
        return [row[: rng.randint(0, len(row))] for row in lists]
    if kind == 2:
        return np.array(lists, dtype=object)
    try:
        tensor = torch.tensor(lists, dtype=dtype)
    except (RuntimeError, OverflowError, ValueError, TypeError):
        return lists
    changes = {
        3: lambda: torch.ones(tensor.shape).to_sparse(),
        4: lambda: tensor.to("meta"),
        5: lambda: torch.stack([tensor, tensor], -1)[..., 0],
        6: lambda: list(tensor),
        7: lambda: np.ma.array(as_array(tensor), mask=rng.random() < 0.5),
        8: lambda: as_array(tensor),
    }
    return changes.get(kind, lambda: tensor)()


def as_array(tensor: torch.Tensor) -> Any:
    return tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def arguments(rng: Random) -> dict[str, Any]:
    """Random arguments of `from_padded`; those left out have none."""
    rows, width = rng.randint(1, 4), rng.randint(1, 5)
    binary = (0, 1, 1, 1) if rng.random() < 0.7 else VALUES
    finite = (0, 1, 0.5, -3.25) if rng.random() < 0.7 else VALUES
    ids = [sorted(rng.randint(-1, 2) for _ in range(width)) for _ in range(rows)]
    labels = [rng.randint(0, 1) for _ in range(rows)]
    given: dict[str, Any] = {
        "mask": table(rng, rows, width, binary),
        "group": contained(rng, labels, torch.int64),
    }
    if rng.random() < 0.4:
        given["step_id"] = contained(rng, ids, rng.choice((torch.int64, torch.int8)))
        given["step_scores"] = table(rng, rows, 3, finite)
    elif rng.random() < 0.7:
        given["token_scores"] = table(rng, rows, width, finite)
    for name in ("outcome", "format", "format_ok"):
        if rng.random() < 0.5:
            numbers = [rng.choice((0, 1) if name == "format_ok" else finite) for _ in range(rows)]
            given[name] = contained(rng, numbers, rng.choice(DTYPES))
    if rng.random() < 0.3:
        given["logprobs"] = {"student": table(rng, rows, width, finite)}
    return given


def check(case: int) -> bool:
    """One case; did its arguments make rollouts?"""
    given = arguments(generator("tensors", case))
    try:
        rollouts = sc.Rollouts.from_padded(**given)
        padded = sc.PASS()(rollouts).padded(given["mask"])
    except StepCreditError as error:
        line = str(error)
    else:
        line = None
    if line is not None:
        assert len(line.splitlines()) == 1, f"case {case}"
        assert len(line) < 300, f"case {case}"
        return False
    assert bool(padded.isfinite().all()), f"case {case}"
    assert padded.shape[0] == rollouts.num_rollouts, f"case {case}"
    trained = torch.tensor([[float(value) != 0 for value in row] for row in given["mask"]])
    assert torch.equal(rollouts.lengths, trained.sum(1)), f"case {case}"
    assert not bool(padded[~trained].any()), f"case {case}"
    return True


def test_random_containers_give_advantages_or_one_line() -> None:
    taken = sum(check(case) for case in range(CASES))
    assert taken > CASES // 50, "too few cases are taken to tell anything"
