"""The room that a run's checkpoints take on the disk, as verl's FSDP workers write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from rich.filesize import decimal
from transformers import AutoModelForCausalLM
from verl.utils.torch_dtypes import PrecisionType

from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.engines.preflight.run_folders import (
    MOMENTS,
    check_room,
    kept_checkpoints,
    size_on_disk,
)

FOLDER = "trainer.default_local_dir"
STRATEGIES = ("fsdp", "fsdp2")
WITH_MOMENTS = ("Adam", "AdamW")
BFLOAT16_BYTES = 2


def check_checkpoint_space(found: Preflight, config: Any, policy: Any) -> None:
    """Refuse a disk without room for the checkpoints that a run keeps.

    What the folder's checkpoints take already is not counted again. On several nodes each writes
    its own shards, maybe on a disk of its own: then it is a note.

    Args:
        found: gets the result.
        config: verl's.
        policy: the policy's config.
    """
    if config.actor_rollout_ref.actor.strategy not in STRATEGIES:
        found.skip("disk space", "the size of checkpoints is known for FSDP alone")
        return
    parameters = _parameters(policy, bool(config.actor_rollout_ref.model.trust_remote_code))
    if parameters is None:
        found.skip("disk space", "the size of the policy is not known")
        return
    folder, kept = Path(config.trainer.default_local_dir), _kept(config.trainer)
    size = kept * saved_bytes(config.actor_rollout_ref, parameters)
    existing = size_on_disk(folder.glob("global_step_*"))
    needed = max(0, size - existing)
    what = f"{kept} checkpoints"
    if config.trainer.nnodes > 1:
        found.note("disk space", f"{what} take {decimal(needed)}; each node writes its part")
    else:
        found.run("disk space", lambda: check_room(folder, needed, what, FOLDER, more=existing > 0))


def saved_bytes(config: Any, parameters: int) -> int:
    """Bytes of a checkpoint of the policy, at least.

        bytes = n b (model + 2 optimizer) + 2 n hf_model

    n parameters of b bytes each. model, optimizer and hf_model are 1 where `save_contents` names
    them, else 0. What a LoRA adapter takes is left out: its optimizer, and the model under
    `save_lora_only`. Of an optimizer that is not torch's Adam no moments are counted.

    Args:
        config: verl's `actor_rollout_ref`.
        parameters: n, of the policy.
    """
    saved, lora = config.actor.checkpoint, bool(config.model.get("lora_rank", 0))
    model = "model" in saved.save_contents and not (lora and saved.get("save_lora_only", False))
    adam = config.actor.optim.get("optimizer") in WITH_MOMENTS
    optimizer = "optimizer" in saved.save_contents and adam and not lora
    each = PrecisionType.to_dtype(config.actor.fsdp_config.model_dtype).itemsize
    exported = BFLOAT16_BYTES * ("hf_model" in saved.save_contents)
    return parameters * (each * (model + MOMENTS * optimizer) + exported)


def _kept(trainer: Any) -> int:
    """How many checkpoints are on the disk at once.

    verl removes the oldest one before it writes the next; with a limit of 1, after it.
    """
    every = trainer.save_freq if trainer.save_freq > 0 else None
    only_last = trainer.get("remove_previous_ckpt_in_save", False)
    limit = 1 if only_last else trainer.get("max_actor_ckpt_to_keep")
    before = max(1, limit - 1) if limit else None
    return kept_checkpoints(trainer.get("total_training_steps"), every, before)


def _parameters(config: Any, trust_remote_code: bool) -> int | None:
    """The number of the policy's parameters; None where the model can't be built without them."""
    try:
        with torch.device("meta"):
            policy = AutoModelForCausalLM.from_config(
                config, trust_remote_code=trust_remote_code, attn_implementation="eager"
            )
    except Exception:  # of any architecture's own code
        return None
    return sum(each.numel() for each in policy.parameters())
