"""Where a run's policy samples and learns: on the CPU, or on one GPU."""

from __future__ import annotations

from stepcredit.errors import StepCreditError

DEVICES = ("cpu", "cuda")
"""Names of the devices as torch has them; `cuda` is also an AMD GPU under ROCm."""


def check_device_name(name: str) -> None:
    """Refuse a name that is not in `DEVICES`.

    Raises:
        StepCreditError: names the devices.

    Example:
        >>> check_device_name("gpu")
        Traceback (most recent call last):
        stepcredit.errors.StepCreditError: device: expected one of cpu, cuda, got 'gpu'
    """
    if name not in DEVICES:
        reason = f"expected one of {', '.join(DEVICES)}, got {name!r}"
        raise StepCreditError(reason, field="device")


def is_gpu(name: str | None) -> bool:
    """Whether a device is a GPU; where none is named, it is the CPU.

    Example:
        >>> is_gpu("cuda"), is_gpu("cpu"), is_gpu(None)
        (True, False, False)
    """
    return name not in (None, "cpu")


def check_device_is_here(name: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        StepCreditError: torch sees no such device.

    Example:
        >>> check_device_is_here("cpu")
    """
    import torch

    if is_gpu(name) and not torch.cuda.is_available():
        reason = f"torch sees no GPU here, and the run's is {name!r}"
        raise StepCreditError(reason, field="device")
