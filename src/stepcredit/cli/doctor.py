"""`stepcredit doctor`: what is installed and works, as a text for a bug report."""

from __future__ import annotations

import os
import platform
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

import stepcredit as sc
from stepcredit.cli.options import repeated
from stepcredit.errors import first_line

PACKAGES = (
    *("torch", "numpy", "transformers", "tokenizers", "trl", "accelerate", "peft", "datasets"),
    *("verl", "vllm", "ray", "deepspeed", "flash-attn", "math-verify", "reasoning-gym"),
    *("httpx", "pyarrow", "rich", "typer"),
)
TRAINERS = {"trl": "TRL", "verl": "verl"}
STEPS = ["2 + 3 = 5.\n\n", "So 5."]
TEXT = "".join(STEPS)
LOCAL_PATH = re.compile(r"(?<![\w.])(?:~|/)[^\s:'\"]+")
"""A path of this machine: from its first `/` or `~` on."""


Names = Annotated[
    list[str],
    repeated("--tokenizer", "A model whose tokenizer is tried: a folder or a name.", "MODEL"),
]


def doctor_command(tokenizers: Names) -> None:
    """Print what a bug report needs: versions, hooks that hold, GPUs, tokenizers.

    No path, host name, user name or environment variable's value is printed.
    """
    for name, said in doctor_lines(tokenizers):
        typer.echo(f"{name:<16} {without_paths(said)}")


def doctor_lines(tokenizers: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """What is checked, and what was found, in the order of the report.

    Args:
        tokenizers: models whose tokenizers are tried.
    """
    yield "stepcredit", sc.__version__
    yield "python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    for name in PACKAGES:
        installed = _version(name)
        if installed is not None:
            yield name, installed
    missing = [name for name in PACKAGES if _version(name) is None]
    yield "not installed", ", ".join(missing) or "none"
    yield "GPUs", _tried(_gpus)
    yield "TRL's hooks", _tried(_trl_hooks) if find_spec("trl") else "trl is not installed"
    yield "verl's hooks", _tried(_verl_hooks) if find_spec("verl") else "verl is not installed"
    for trainer, shown in TRAINERS.items():
        if _version(trainer) is not None:
            yield f"{shown}'s versions", _tried(partial(_environment, trainer))
    yield "tokenizers", _tried(_own_tokenizer)
    for name in tokenizers:
        yield "tokenizer", f"{Path(name).name}: {_tried(partial(_named_tokenizer, name))}"
    yield "grading", _tried(_grading)
    yield "plugins", _tried(_plugins)


def without_paths(text: str) -> str:
    """A text in which each absolute path is `<path>`, and the home folder and user are not named.

    Example:
        >>> without_paths("no such file: /home/me/runs/a.yaml: denied")
        'no such file: <path>: denied'
    """
    shown = LOCAL_PATH.sub("<path>", text.replace(str(Path.home()), "~"))
    user = os.environ.get("USER") or os.environ.get("USERNAME") or ""
    return re.sub(rf"\b{re.escape(user)}\b", "<user>", shown) if len(user) > 2 else shown


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tried(check: Callable[[], str]) -> str:
    """What a check says, with its warnings; of one that fails, why."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            said = check()
        except Exception as error:  # of any library: the report goes on
            said = f"FAILS: {type(error).__name__}: {first_line(error)}"
    told = [str(each.message) for each in caught if each.category is UserWarning]
    return "; ".join([said, *(f"warning: {first_line(Warning(line))}" for line in told)])


def _gpus() -> str:
    import torch

    if not torch.cuda.is_available():
        return f"none that torch can use (built for CUDA {torch.version.cuda or 'no version'})"
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    shown = [f"{each.name} of {each.total_memory / 2**30:.0f} GiB" for each in found]
    return f"{len(shown)}: {', '.join(dict.fromkeys(shown))}; CUDA {torch.version.cuda}"


def _trl_hooks() -> str:
    from trl import GRPOTrainer

    from stepcredit.engines.trl.start_checks import HOOKS, check_hooks

    check_hooks(GRPOTrainer)
    return f"all {len(HOOKS)} hold"


def _verl_hooks() -> str:
    import transfer_queue

    from stepcredit.engines.verl.config_checks import HOOKS, check_trainer_hooks
    from stepcredit.engines.verl.trainer import PPOTrainerSync

    check_trainer_hooks(PPOTrainerSync, transfer_queue)
    return f"all {len(HOOKS)} hold"


def _environment(trainer: str) -> str:
    """Whether the trainer's tests were run with the versions that are installed."""
    from stepcredit.engines.known_environments import environment_verdict

    installed = {name: found for name in PACKAGES if (found := _version(name)) is not None}
    return environment_verdict(trainer, installed)


def _own_tokenizer() -> str:
    from stepcredit.launch.tiny_models import tokenizer

    return _steps_by(tokenizer())


def _named_tokenizer(name: str) -> str:
    from stepcredit.signals.models.checkpoints import load_tokenizer

    return _steps_by(load_tokenizer(name))


def _steps_by(tokenizer: Any) -> str:
    """Whether a tokenizer says which characters its tokens hold: steps are cut by them."""
    from stepcredit.signals.responses import Response
    from stepcredit.signals.splitting import BlankLine

    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    split = BlankLine(inside="extend").split(Response.of_ids("?", ids, tokenizer))
    if split.step_texts != STEPS:
        return f"WRONG: {TEXT!r} is cut into {split.step_texts}"
    return f"steps are cut as expected, {len(tokenizer)} tokens"


def _grading() -> str:
    from stepcredit.rewards.sandbox import walls

    holding = [name for name, holds in walls().items() if holds]
    return f"confined: {', '.join(holding) or 'by limits alone'}"


def _plugins() -> str:
    from stepcredit.credit.method_registry import METHODS
    from stepcredit.rewards.reward_registry import REWARDS
    from stepcredit.signals.signal_registry import SIGNALS

    registries = (METHODS, SIGNALS, REWARDS)
    found = [
        f"{each.kind} {point.name}"
        for each in registries
        for point in entry_points(group=each.group)
    ]
    return ", ".join(found) or "none"
