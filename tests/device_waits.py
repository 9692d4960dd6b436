"""Counts what would make a program wait for an accelerator, on a CPU.

A GPU works behind the program: the program waits only where it needs a number, such as in
`tensor.item()`, `if tensor:`, or where a result's shape depends on values.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from stepcredit.data import forest

READ = ("item", "tolist", "cpu", "numpy", "__array__", "__bool__", "__int__", "__float__")
READ += ("__index__", "__contains__", "__repr__", "__format__", "equal", "allclose")
SHAPED_BY_VALUES = ("nonzero", "argwhere", "unique", "unique_consecutive", "masked_select")
SHAPED_BY_VALUES += ("bincount",)


class DeviceWaits(TorchFunctionMode):
    """While it is entered: how often each operation that waits is called, and all calls of torch.

    Example:
        >>> with DeviceWaits() as found:
        ...     value = torch.ones(3)[torch.tensor([True, False, True])].sum().item()
        >>> dict(found.waits)
        {'boolean index': 1, 'item': 1}
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        wait = waited_for(func, args, kwargs or {})
        if wait is not None:
            self.waits[wait] += 1
        return func(*args, **(kwargs or {}))


def waited_for(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The name under which a call of torch is counted; None: it does not wait."""
    name = func.__name__
    if name in READ + SHAPED_BY_VALUES:
        return str(name)
    if name in ("__getitem__", "__setitem__") and _has_flags(args[1]):
        return "boolean index"
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return "repeat_interleave without output_size"
    if name == "where" and len(args) + len(kwargs) == 1:
        return "where of a condition alone"
    return None


def _has_flags(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, Tensor) and part.dtype == torch.bool for part in parts)


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the CPU take the paths that tensors on a GPU take."""
    monkeypatch.setattr(forest, "in_numpy", lambda values: False)
