"""Settings of TRL that every training in a test shares."""

from typing import Any

ON_CPU: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}
"""On the CPU in float32, without checkpoints, reports and bars."""
