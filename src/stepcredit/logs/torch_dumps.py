"""Dumps that `torch.save` wrote, read as data: code that a dump names is never run."""

from __future__ import annotations

import re
import warnings
from pickle import UnpicklingError
from typing import Any, BinaryIO

import torch
from torch import Tensor

from stepcredit.data.files.jsonl import file_errors
from stepcredit.errors import FileError

DUMP = ".pt"
_NAMED = re.compile(r"(?:GLOBAL|global:?|class) ([\w.]+\.[\w.]+)")


def data_of_dump(path: str) -> Any:
    """What a dump holds, as JSON would hold it: a tensor of one dimension is a list.

    A tensor of more dimensions, such as the pixels of a picture, is null; a set is a list.

    Args:
        path: a file that `torch.save` wrote.

    Raises:
        FileError: the file can't be read, is no such dump, or holds anything beside numbers, texts,
            lists, objects and tensors.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> path = str(Path(tempfile.mkdtemp()) / "0.pt")
        >>> torch.save({"samples": [{"tokens": torch.tensor([4, 5]), "reward": 1.0}]}, path)
        >>> data_of_dump(path)
        {'samples': [{'tokens': [4, 5], 'reward': 1.0}]}
    """
    with file_errors(path), open(path, "rb") as file:
        try:
            return _as_json(_loaded(file))
        except UnpicklingError as error:
            raise FileError(f"{path}: {_refusal(str(error))}") from None
        except Exception:  # torch's reader of pickles raises anything for bytes that are none
            raise FileError(f"{path}: is not a whole file of torch.save") from None


def _loaded(file: BinaryIO) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other pickles than torch.save's, which are refused
        return torch.load(file, map_location="cpu", weights_only=True)


def _refusal(message: str) -> str:
    """Why torch did not load a dump, from its message of several lines."""
    named = _NAMED.search(message)
    if named is None:
        return "is not a file of torch.save that holds data alone"
    expected = "expected numbers, texts, lists, objects and tensors alone; no code of a dump is run"
    return f"holds {named[1]}: {expected}"


def _as_json(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist() if value.dim() <= 1 else None
    if isinstance(value, dict):
        return {str(name): _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_as_json(inner) for inner in value]
    return value
