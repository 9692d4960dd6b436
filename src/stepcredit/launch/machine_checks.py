"""What a recipe needs of the machine: a GPU, vLLM or its server, and the loggers it names."""

from __future__ import annotations

from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.preflight.server_pings import ping
from stepcredit.errors import SettingError

PRECISIONS = ("bf16", "fp16", "tf32", "bf16_full_eval", "fp16_full_eval")
"""Keys that TRL refuses on a machine without a GPU."""


def as_on_cpu(values: dict[str, Any]) -> list[str]:
    """Change keys that ask for a GPU where there is none, so that all others can be checked.

    Args:
        values: every key's value; changed.

    Returns:
        The keys that were changed; none on a machine with a GPU, or for a run on a CPU.
    """
    asked = [name for name in PRECISIONS if values.get(name)]
    if values.get("bf16") is None and not values.get("fp16"):
        asked.append("bf16")  # TRL's default
    if values.get("use_cpu") or not asked or torch.accelerator.is_available():
        return []
    values.update(dict.fromkeys(asked, False), use_cpu=True)
    return asked


def check_sampler(found: Preflight, training: Any, *, is_elsewhere: bool, waits: bool) -> None:
    """Check that vLLM is installed, and that its server answers.

    Args:
        found: gets the results.
        training: the keys of TRL.
        is_elsewhere: whether this machine is not the one that trains, so that it needs no vLLM.
        waits: whether TRL itself will wait for the server, as it does when it starts.
    """
    if not training.use_vllm:
        return
    if is_elsewhere:
        found.skip("vLLM", "this machine has no GPU")
    else:
        found.run("vLLM", _installed_vllm)
    if training.vllm_mode != "server":
        return
    if waits:
        found.skip("vLLM's server", f"TRL waits {training.vllm_server_timeout:g} s for it")
    else:
        url = training.vllm_server_base_url
        place = "vllm_server_host" if url is None else "vllm_server_base_url"
        own = f"http://{training.vllm_server_host}:{training.vllm_server_port}"
        found.run("vLLM's server", partial(ping, url or own), at=place)


def _installed_vllm() -> str:
    """The version of vLLM.

    Raises:
        SettingError: it is not installed.
    """
    try:
        return version("vllm")
    except PackageNotFoundError:
        reason = "vLLM is not installed: `pip install vllm`, or set it to false"
        raise SettingError(reason, field="use_vllm") from None


def check_loggers(found: Preflight, training: Any) -> None:
    """Check that the loggers are known to transformers, and that their packages are installed.

    Args:
        found: gets the results.
        training: the keys of TRL; `report_to` is a list.
    """
    for name in training.report_to:
        found.run(f"logger {name}", partial(_made_logger, name), at="report_to")


def _made_logger(name: str) -> bool:
    """Whether the callback of a logger can be made.

    Raises:
        SettingError: transformers has no such logger, or its package is missing.
    """
    if name not in INTEGRATION_TO_CALLBACK:
        known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
        raise SettingError(f"{name!r} is unknown: expected {known}, all or none", field="report_to")
    try:
        INTEGRATION_TO_CALLBACK[name]()
    except (RuntimeError, ImportError) as error:
        raise SettingError(" ".join(str(error).split()), field="report_to") from None
    return True
