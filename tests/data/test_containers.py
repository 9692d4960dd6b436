"""Every argument in every kind of container: the same rollouts, or one line that says why not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

import stepcredit as sc
from stepcredit.errors import RolloutError

MASK = torch.tensor([[1, 1, 0], [0, 1, 1]])
IDS = [[0, 1, -1], [-1, 0, 1]]
SCORES = [[0.5, 0.25, 9.0], [9.0, 0.25, 1.0]]


class ArrayLike:
    """What NumPy can read and nothing else can, as a pandas frame or a jax array."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.values


@dataclass(frozen=True)
class Argument:
    """An argument of one call: its values, their dtype, and the call."""

    values: Any
    dtype: torch.dtype
    call: Callable[[Any], Any]

    @property
    def tensor(self) -> torch.Tensor:
        return torch.tensor(self.values, dtype=self.dtype)


def padded(**given: Any) -> sc.Rollouts:
    return sc.Rollouts.from_padded(given.pop("mask", MASK), [0, 0], **given)


def built(**given: Any) -> sc.Rollouts:
    return sc.Rollouts(**{"group": [0, 1], "lengths": [2, 2], **given})


def advantages() -> sc.Advantages:
    return sc.GRPO()(built(group=[0, 0], outcome=[1.0, 0.0]))


STEPS = {"step_id": torch.tensor(IDS), "step_scores": torch.tensor(SCORES)}
TABLES: dict[str, Argument] = {
    "mask": Argument(MASK.tolist(), torch.int64, lambda v: padded(mask=v)),
    "float mask": Argument(MASK.tolist(), torch.float32, lambda v: padded(mask=v)),
    "flags": Argument(MASK.bool().tolist(), torch.bool, lambda v: padded(mask=v)),
    "step_id": Argument(IDS, torch.int64, lambda v: padded(**{**STEPS, "step_id": v})),
    "short step_id": Argument(IDS, torch.int8, lambda v: padded(**{**STEPS, "step_id": v})),
    "step_scores": Argument(SCORES, torch.float64, lambda v: padded(**{**STEPS, "step_scores": v})),
    "token_scores": Argument(SCORES, torch.float64, lambda v: padded(token_scores=v)),
    "half scores": Argument(SCORES, torch.float16, lambda v: padded(token_scores=v)),
    "whole scores": Argument(IDS, torch.int8, lambda v: padded(token_scores=v)),
    "logprobs": Argument(SCORES, torch.float64, lambda v: padded(logprobs={"student": v})),
    "padded": Argument(MASK.tolist(), torch.int64, lambda v: advantages().padded(v)),
    "Tokens": Argument(
        [[0.5, 0.25], [0.25, 1.0]], torch.float64, lambda v: built(process=sc.Tokens(v))
    ),
    "ends": Argument(
        [[0, 1], [0, 1]],
        torch.uint8,
        lambda v: built(process=sc.Steps(v, [[0.5, 0.25], [0.25, 1.0]])),
    ),
    "step_ends": Argument([[0, 1], [0, 1]], torch.int16, lambda v: built(step_ends=v)),
}
VECTORS: dict[str, Argument] = {
    "lengths": Argument([2, 2], torch.uint8, lambda v: built(lengths=v)),
    "outcome": Argument([1.0, 0.0], torch.float32, lambda v: built(outcome=v)),
    "whole outcome": Argument([1, 0], torch.int64, lambda v: built(outcome=v)),
    "format": Argument([1.0, 0.0], torch.float64, lambda v: built(format=v)),
    "format_ok": Argument([True, False], torch.bool, lambda v: built(format_ok=v)),
    "group": Argument([7, 3], torch.int64, lambda v: built(group=v)),
    "counts": Argument(
        [2, 2], torch.int32, lambda v: built(process=sc.Tokens(torch.arange(4.0), counts=v))
    ),
    "take": Argument([1, 0], torch.int32, lambda v: built(outcome=[1.0, 0.0]).take(v)),
    "take flags": Argument([True, False], torch.bool, lambda v: built(outcome=[1, 0]).take(v)),
    "stream take": Argument(
        [1, 0], torch.int64, lambda v: built(process=sc.Tokens([[1.0, 2.0]] * 2).take(v))
    ),
}


def summary(found: Any) -> Any:
    """All that rollouts hold, or a table, as plain values."""
    if isinstance(found, torch.Tensor):
        return found.tolist()
    streams = {**found.streams, **found.logprobs}
    if found.step_ends is not None:
        streams["step_ends"] = found.step_ends
    return (
        found.group_labels,
        found.group_index.tolist(),
        found.lengths.tolist(),
        {
            n: (s.values.tolist(), s.counts.tolist(), s.values.dtype.is_floating_point)
            for n, s in streams.items()
        },
        [getattr(s, "ends", s.counts).tolist() for s in streams.values()],
        found.outcome.tolist(),
        found.has_outcome.tolist(),
        found.format.tolist(),
        found.format_ok.tolist(),
    )


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.setflags(write=False)
    return array


GOOD: dict[str, Callable[[Argument], Any]] = {
    "array": lambda a: a.tensor.numpy(),
    "list": lambda a: a.values,
    "tuple": lambda a: tuple(a.values),
    "parts": lambda a: list(a.tensor),
    "array parts": lambda a: list(a.tensor.numpy()),
    "objects": lambda a: np.array(a.values, dtype=object),
    "read-only": lambda a: _read_only(a.tensor.numpy()),
    "other byte order": lambda a: a.tensor.numpy().astype(a.tensor.numpy().dtype.newbyteorder(">")),
    "nothing masked": lambda a: np.ma.array(a.tensor.numpy()),
    "array-like": lambda a: ArrayLike(a.tensor.numpy()),
    "not contiguous": lambda a: torch.stack([a.tensor, a.tensor], -1)[..., 0],
    "fortran order": lambda a: np.asfortranarray(a.tensor.numpy()),
    "with a gradient": lambda a: a.tensor.requires_grad_(a.dtype.is_floating_point),
    "subclass": lambda a: torch.nn.Parameter(a.tensor, requires_grad=False),
}


def _sparse_csr(a: Argument) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return a.tensor.reshape(2, -1).to_sparse_csr()


def _quantized(a: Argument) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(a.tensor.float(), 1.0, 0, torch.quint8)


def _nested(a: Argument) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def _masked(a: Argument) -> np.ndarray:
    array = a.tensor.numpy()
    return np.ma.array(array, mask=np.arange(array.size).reshape(array.shape) == 1)


BAD: dict[str, Callable[[Argument], Any]] = {
    "text": lambda a: "ab",
    "bytes": lambda a: b"ab",
    "number": lambda a: 1.0,
    "object": lambda a: object(),
    "mapping": lambda a: {0: 1},
    "set": lambda a: {0, 1},
    "sparse": lambda a: a.tensor.to_sparse(),
    "sparse rows": _sparse_csr,
    "meta": lambda a: a.tensor.to("meta"),
    "complex": lambda a: a.tensor.to(torch.complex64),
    "complex array": lambda a: a.tensor.numpy().astype(np.complex128),
    "quantized": _quantized,
    "float8": lambda a: a.tensor.float().to(torch.float8_e4m3fn),
    "nested": _nested,
    "masked": _masked,
    "masked objects": lambda a: np.ma.array(np.array(a.values, dtype=object), mask=_masked(a).mask),
    "dates": lambda a: np.zeros(a.tensor.shape, dtype="datetime64[D]"),
    "records": lambda a: np.zeros(a.tensor.shape, dtype=[("a", int)]),
    "long doubles": lambda a: np.ones(a.tensor.shape, dtype=np.longdouble),
    "no dimension": lambda a: a.tensor.reshape(-1)[0],
    "nan": lambda a: a.tensor.double() * float("nan"),
    "nan list": lambda a: (a.tensor.double() * float("nan")).tolist(),
    "numbers as text": lambda a: np.array(a.values).astype(str).tolist(),
    "texts": lambda a: np.array(a.values).astype(str),
    "meta numbers": lambda a: [[torch.ones((), device="meta")] * 3] * 2,
    "halves": lambda a: a.tensor.double() + 0.5,
    "three dimensions": lambda a: a.tensor.reshape(1, 1, -1),
    "one row more": lambda a: [*a.values, a.values[0]],
    "nothing": lambda a: [],
}
RIGHT = {  # what is no fault of that argument: a number it takes, an unknown, a label
    *((name, "masked") for name in ("outcome", "whole outcome", "format")),
    *((name, "masked objects") for name in ("outcome", "whole outcome", "format")),
    *((name, "halves") for name in ("step_scores", "token_scores", "half scores", "whole scores")),
    *((name, "halves") for name in ("logprobs", "Tokens", "outcome", "whole outcome", "format")),
    *(("group", kind) for kind in ("numbers as text", "texts")),
    *((name, "three dimensions") for name in ("lengths", "outcome", "whole outcome", "format")),
    ("format_ok", "three dimensions"),
    ("take", "one row more"),
}
ARGUMENTS = {**TABLES, **VECTORS}
every_argument = pytest.mark.parametrize("name", ARGUMENTS)


@every_argument
@pytest.mark.parametrize("kind", GOOD)
def test_each_kind_gives_the_same(name: str, kind: str) -> None:
    argument = ARGUMENTS[name]
    want = summary(argument.call(argument.tensor))
    assert summary(argument.call(GOOD[kind](argument))) == want


@every_argument
@pytest.mark.parametrize("kind", BAD)
def test_each_bad_kind_gives_one_line(name: str, kind: str) -> None:
    argument = ARGUMENTS[name]
    if (name, kind) in RIGHT:
        argument.call(BAD[kind](argument))
        return
    with pytest.raises(RolloutError) as refused:
        argument.call(BAD[kind](argument))
    assert refused.value.field
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 150
