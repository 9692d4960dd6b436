"""The embedded tasks by name."""

from __future__ import annotations

from typing import Any

from stepcredit.errors import SettingError
from stepcredit.settings.registry import Registry

OWN = {
    "arithmetic": "stepcredit.lab.arithmetic",
    "multihop": "stepcredit.lab.multihop",
    "agent": "stepcredit.lab.agent",
}
"""Our own tasks and the modules that register them; a module loads with the first use."""

TASKS: Registry[Any] = Registry("task", "stepcredit.tasks", SettingError, own=OWN)
"""Classes of `stepcredit.lab.task.Task`."""
