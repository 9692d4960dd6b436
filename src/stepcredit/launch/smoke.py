"""`--smoke`: tries a recipe with tiny models, built-in rows and two steps, else unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback

from stepcredit.errors import SettingError
from stepcredit.launch.recipe_fields import mapping_of
from stepcredit.launch.tiny_models import ROWS, save_language_model, save_reward_model, save_rows
from stepcredit.launch.tiny_vocabulary import TinyVocabulary, reward_pieces
from stepcredit.signals.served.served_signal import Served
from stepcredit.signals.signal_registry import SIGNALS

STEPS = 2
LONGEST = 32
MODELS = ("model", "teacher", "student", "base", "prm", "ref")
CPU_OVERRIDES: dict[str, Any] = {
    "tools": None,
    "use_cpu": True,
    "bf16": False,
    "fp16": False,
    "tf32": None,
    "dtype": "float32",
    "attn_implementation": None,
    "load_in_4bit": False,
    "load_in_8bit": False,
    "model_init_kwargs": None,
    "model_revision": "main",
    "use_vllm": False,
    "deepspeed": None,
    "fsdp": None,
    "fsdp_config": None,
    "torch_compile": False,
    "use_liger_kernel": False,
    "dataloader_pin_memory": False,
    "dataloader_num_workers": 0,
    "report_to": "none",
    "push_to_hub": False,
    "resume_from_checkpoint": None,
    "save_strategy": "no",
    "disable_tqdm": True,
}
"""Values for keys that make no sense for a tiny model on the CPU or for two steps."""


@dataclass(frozen=True)
class Place:
    """The folder where tiny models are saved, and the texts that they write."""

    folder: Path
    pieces: TinyVocabulary


def for_smoke_test(values: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[str]]:
    """A recipe's values with tiny models and built-in rows, for two steps on the CPU.

    The method, the signals' kinds, protocols and fields, the splitter, the rewards, the loss and
    the group size are not changed.

    Args:
        values: every key's value.
        folder: where the models, the rows and the trained model are saved.

    Returns:
        The values, and one line for each changed key.

    Raises:
        SettingError: a signal that no tiny model can replace, or an unknown reward.
    """
    tiny = dict(values)
    rewards = (mapping_of(values[key], key) for key in ("rewards", "reward_fields"))
    place = Place(folder, reward_pieces(*rewards))
    model = save_language_model(folder / "policy", pieces=place.pieces)
    rows = save_rows(folder, mapping_of(values["columns"], "columns"))
    tiny |= CPU_OVERRIDES | _sizes(values)
    tiny |= {"model_name_or_path": model, "output_dir": str(folder / "out")}
    if values["rollouts_dir"] is not None:
        tiny["rollouts_dir"] = str(folder / "rollouts")
    tiny |= {"dataset_name": rows, "dataset_config": None, "dataset_train_split": "train"}
    if str(values["eval_strategy"]) not in ("no", "False"):
        tiny |= {"eval_dataset_name": rows, "dataset_test_split": "train"}
        tiny |= {"eval_strategy": "steps", "eval_steps": STEPS}
    for key in ("process_signal", "logprobs"):
        if values.get(key) is not None:
            tiny[key], tiny[f"{key}_fields"] = _tiny_signals(values, key, place)
    lines = []
    for key, new in tiny.items():
        if new != values[key]:
            shown = str(new).replace(f"{folder}/", "")
            lines.append(f"{key}: {shown} for {values[key]}")
    return tiny, lines


def _sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Short responses, one or two groups per step, and unchanged minibatches per generation."""
    group, accumulated = values["num_generations"], values["gradient_accumulation_steps"]
    minibatches = max(1, (values["steps_per_generation"] or accumulated) // accumulated)
    return {
        "max_steps": STEPS,
        "logging_steps": 1,
        "per_device_train_batch_size": group,
        "per_device_eval_batch_size": ROWS * (values["num_generations_eval"] or group),
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 2 * minibatches,
        "generation_batch_size": None,
        "max_completion_length": min(LONGEST, values["max_completion_length"]),
        "max_prompt_length": None,
    }


def _tiny_signals(values: Mapping[str, Any], key: str, place: Place) -> tuple[Any, Any]:
    """A recipe's signals and their fields, with tiny models."""
    named, given = values[key], mapping_of(values[f"{key}_fields"], f"{key}_fields")
    if isinstance(named, str) and not named.startswith("{"):
        return _tiny_signal(named, given, key, place)
    names: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for stream, name in mapping_of(named, key).items():
        fields_of = mapping_of(given.get(stream), f"{key}_fields.{stream}")
        names[stream], settings[stream] = _tiny_signal(name, fields_of, f"{key}.{stream}", place)
    return names, settings


def _tiny_signal(
    name: str, given: Mapping[str, Any], key: str, place: Place
) -> tuple[str, dict[str, Any]]:
    """A signal with tiny models and the same protocol; a served signal becomes a local one."""
    local = name
    kind: Any = SIGNALS.named(name)
    if issubclass(kind, Served):
        if kind.local_signal is None:
            reason = (
                f"{name}: --smoke has no tiny model that gives verdicts; try the rest without it"
            )
            raise SettingError(f"{reason}, by --process_signal none", field=key)
        local, kind = kind.local_signal, SIGNALS.named(kind.local_signal)
    known = [each.name for each in fields(kind)]
    tiny = {field: value for field, value in given.items() if field in known or local == name}
    tiny.pop("revision", None)
    for field in MODELS:
        if field in known and tiny.get(field, given.get(field)) is not None:
            tiny[field] = _tiny_model(local, tiny, field, place)
    if "device" in known:
        tiny["device"] = "cpu"
    if tiny.get("tokenizer") is not None:
        tiny["tokenizer"] = str(place.folder / "policy")
    return local, tiny


def _tiny_model(signal: str, given: Mapping[str, Any], field: str, place: Place) -> str:
    if signal == "prm":
        protocol = given.get("protocol")
        folder = place.folder / f"reward-model-{protocol}"
        return save_reward_model(folder, protocol, given.get("protocol_settings") or {})
    seed = 1 + MODELS.index(field)
    return save_language_model(place.folder / field, seed, place.pieces)


class CreditCount(TrainerCallback):  # type: ignore[misc]
    """Counts the responses of training, and those with a nonzero advantage.

    Args:
        trainer: its generations are counted once each, without evaluations.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.last: Any = None
        self.counts = (0, 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the generation if it is new since the step before."""
        batch = self.trainer.credited
        if batch is not self.last:
            credited = int(batch.advantages.ne(0).any(1).sum())
            self.counts = self.counts[0] + credited, self.counts[1] + len(batch.advantages)
        self.last = batch

    @property
    def summary(self) -> str:
        """The counts of all processes in one line; called on each process."""
        credited, count = map(sum, zip(*gather_object([self.counts]), strict=True))
        return f"{credited} of {count} responses had a nonzero advantage"
