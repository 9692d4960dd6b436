"""Load checkpoints of transformers without remote code, and fingerprint them for a cache."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stepcredit.errors import SettingError, SignalError, StepCreditError, first_line
from stepcredit.requires import require

FSDP_LOADING_ENV = "FSDP_CPU_RAM_EFFICIENT_LOADING"
"""accelerate's setting with which transformers loads weights in the first process only."""
DTYPES = ("auto", "float32", "bfloat16", "float16")


def is_model(value: Any) -> str | None:
    """A check for settings that hold a model.

    A loaded model is called, which no number, list or mapping can be.

    Example:
        >>> is_model("models/policy"), is_model(torch.nn.Linear(1, 1)), is_model(None)
        (None, None, "a model's folder or name, or a loaded model")
    """
    return None if _is_loadable(value) else "a model's folder or name, or a loaded model"


def is_optional_model(value: Any) -> str | None:
    """A check for settings that may hold a model.

    Example:
        >>> is_optional_model(None), is_optional_model(["models/policy"])
        (None, "a model's folder or name, a loaded model, or null")
    """
    if value is None or _is_loadable(value):
        return None
    return "a model's folder or name, a loaded model, or null"


def is_tokenizer(value: Any) -> str | None:
    """A check for settings that may hold a tokenizer; a loaded one is called, as a model is.

    Example:
        >>> is_tokenizer("models/policy"), is_tokenizer(None), is_tokenizer(5)
        (None, None, "a tokenizer's folder or name, a loaded tokenizer, or null")
    """
    if value is None or _is_loadable(value):
        return None
    return "a tokenizer's folder or name, a loaded tokenizer, or null"


def _is_loadable(value: Any) -> bool:
    """Whether it is a folder or name to load from, or may be a loaded model or tokenizer."""
    return isinstance(value, str | Path) or callable(value)


def load_tokenizer(tokenizer: Any, revision: str | None = None) -> Any:
    """A tokenizer from a folder or a name on the Hub, or the loaded one given.

    Raises:
        MissingExtra: transformers is not installed.
        SignalError: there is none, or it does not load.
    """
    if not isinstance(tokenizer, str | Path):
        return tokenizer
    require("signals", "transformers")
    from transformers import AutoTokenizer

    source = str(tokenizer)
    with loading(source):
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)


def load_whole(kind: Any, source: str, *, dtype: str = "auto", revision: str | None = None) -> Any:
    """Load a transformers model with all its weights on every process.

    Args:
        kind: one of transformers' auto classes.
        source: a folder or a name on the Hub.
        dtype: "auto" is the type in the checkpoint.
        revision: branch, tag or commit on the Hub.

    Raises:
        SignalError: weights are missing, or of another shape; the error names them.
    """
    rest = {"dtype": dtype, "revision": revision, "trust_remote_code": False}
    with _on_every_process():
        model, report = kind.from_pretrained(source, output_loading_info=True, **rest)
    missing = sorted(report["missing_keys"]) + sorted(key[0] for key in report["mismatched_keys"])
    if missing:
        more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
        raise SignalError(f"lacks the weights {', '.join(missing[:4])}{more}")
    return model


@contextmanager
def _on_every_process() -> Iterator[None]:
    """A block in which every process reads the weights, whatever accelerate's setting says.

    With that setting FSDP loads the weights later, but only those of the policy: the weights of a
    signal's model would never be loaded.
    """
    before = os.environ.pop(FSDP_LOADING_ENV, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[FSDP_LOADING_ENV] = before


def to_device(model: Any, device: str) -> Any:
    """The model on a device; "auto" is the accelerator, if there is one.

    Raises:
        SettingError: torch has no such device.
    """
    if device == "auto":
        device = str(torch.accelerator.current_accelerator() or "cpu")
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"{device!r}: {first_line(error)}", field="device") from error


@contextmanager
def loading(source: str) -> Iterator[None]:
    """A block that loads something with transformers: no notices, and failures in one line.

    Args:
        source: the folder or name that errors name.

    Raises:
        SignalError: it does not load.
    """
    with quiet_transformers():
        try:
            yield
        except SignalError as error:
            raise error.at(place=source) from error.__cause__
        except StepCreditError:
            raise
        except Exception as error:
            raise SignalError(f"does not load: {first_line(error)}", place=source) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """A block in which transformers shows no progress bars, and no notices but errors."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def oom_as_signal_error(rows: int, width: int) -> Iterator[None]:
    """A block that runs one forward; if memory runs out, the error names the setting to lower.

    Raises:
        SignalError: the device is out of memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = f"not enough memory for {rows} x {width} tokens; lower max_tokens_per_batch"
        raise SignalError(reason) from error


def model_label(model: Any) -> str:
    """The name of a model or tokenizer in messages: the path from which it is or was loaded."""
    if isinstance(model, str | Path):
        return str(model)
    return str(getattr(model, "name_or_path", "") or type(model).__name__)


def fingerprint(model: Any, revision: str | None = None) -> str:
    """A digest that identifies a model, so that a cache never returns another model's scores.

        folder          names and contents of its JSON, names, sizes and times of its other files
        name on the Hub the commit that the revision stands for
        loaded model    its config, its weights' names, types and bytes: it changes with each update

    Raises:
        SignalError: there is no such checkpoint.

    Example:
        >>> a, b = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        >>> fingerprint(a) == fingerprint(a) != fingerprint(b)
        True
    """
    if isinstance(model, str | Path):
        return _of_source(str(model), revision)
    return _of_weights(model)


def _of_source(source: str, revision: str | None) -> str:
    folder = Path(source)
    if not folder.is_dir():
        return _commit(source, revision)
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(f"{file.name}\n".encode())
        if file.suffix == ".json":
            digest.update(file.read_bytes())
        else:
            stat = file.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _commit(source: str, revision: str | None) -> str:
    from transformers.utils import cached_file
    from transformers.utils.hub import extract_commit_hash

    try:
        commit = extract_commit_hash(cached_file(source, "config.json", revision=revision), None)
    except (OSError, ValueError) as error:
        reason = f"does not load: {first_line(error)}"
        raise SignalError(reason, place=source) from error
    return commit or str(revision)


def _of_weights(model: nn.Module) -> str:
    digest = hashlib.sha256()
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_json_string"):
        digest.update(config.to_json_string().encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        flat = weight.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint_of_tokenizer(tokenizer: Any, revision: str | None = None) -> str:
    """A tokenizer's fingerprint: of a loaded one its rules, special tokens and chat template; of a
    folder or a name on the Hub as `fingerprint`.

    Raises:
        SignalError: there is no such folder or name.
    """
    if isinstance(tokenizer, str | Path):
        return _of_source(str(tokenizer), revision)
    rules = [tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else tokenizer.get_vocab()]
    rules += [tokenizer.chat_template, str(tokenizer.special_tokens_map)]
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()
