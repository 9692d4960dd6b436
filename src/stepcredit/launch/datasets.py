"""Loads a recipe's rows, names their columns, and makes conversations of their prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, ReadInstruction, load_dataset, load_from_disk

from stepcredit.engines.preflight.context_lengths import prompt_ids_of
from stepcredit.errors import SettingError, first_line
from stepcredit.settings.registry import hint

READERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet", ".csv": "csv"}
_PLACE = re.compile(r"\{(\w+)\}")


def load_rows(
    name: str, *, config: str | None = None, split: str = "train", setting: str = "dataset_name"
) -> Dataset:
    """A split of a dataset: a file, a folder, or a name on the Hub.

    Args:
        name: FILE.jsonl, .json, .parquet or .csv (`.gz` too), which is one split; a folder of such
            files, or one that `Dataset.save_to_disk` wrote; else a name on the Hub.
        config: which of a dataset's configurations.
        split: which rows, as `datasets` writes it: "train", "train[:5000]". A file, and a folder of
            a single saved dataset, is one split whatever it is called (`check_split`): only the
            part in brackets counts.
        setting: the key that errors name.

    Raises:
        SettingError: there is no such file or dataset, or it does not load.
    """
    path = Path(name).expanduser()
    try:
        if path.is_file():
            reader = _reader(path, setting)
            part = split[split.index("[") :] if "[" in split else ""
            return load_dataset(reader, data_files=str(path), split=f"train{part}")
        if path.is_dir() and _is_saved(path):
            return _part_of(load_from_disk(str(path)), split)
        if path.is_dir() or not _is_path(name):
            return load_dataset(str(path) if path.is_dir() else name, name=config, split=split)
    except SettingError:
        raise
    except Exception as error:
        raise SettingError(f"{name}: {first_line(error)}", field=setting) from error
    raise SettingError(f"no such file or folder: {name}", field=setting)


def _reader(path: Path, setting: str) -> str:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    if not suffixes or suffixes[-1] not in READERS:
        raise SettingError(f"{path}: expected one of {', '.join(READERS)}", field=setting)
    return READERS[suffixes[-1]]


def _is_path(name: str) -> bool:
    """Whether a name that is no existing file or folder looks like a path."""
    return name.startswith((".", "/", "~")) or Path(name).suffix in {*READERS, ".gz"}


def _is_saved(folder: Path) -> bool:
    return _is_one_saved(folder) or (folder / "dataset_dict.json").exists()


def _is_one_saved(folder: Path) -> bool:
    """Whether a folder holds a single saved dataset, without splits."""
    return (folder / "state.json").exists()


def _part_of(saved: Dataset | DatasetDict, split: str) -> Dataset:
    """The rows of a saved dataset that a split such as `train[:90%]` names."""
    name, bracket, part = split.partition("[")
    rows = saved if isinstance(saved, Dataset) else saved.get(name)
    if rows is None:
        raise ValueError(f"no split {name!r}, there are: {', '.join(saved)}")
    if not bracket:
        return rows
    parts = ReadInstruction.from_spec(f"train[{part}").to_absolute({"train": len(rows)})
    return rows.select([row for each in parts for row in range(each.from_, each.to)])


def check_split(name: str, split: str, setting: str) -> None:
    """Refuse another split than `train` of what is one split, because it would be all its rows.

    Args:
        name: as for `load_rows`.
        split: as for `load_rows`.
        setting: the key that names the split.

    Raises:
        SettingError: the dataset is a file or a single saved dataset, and the split is not a part
            of "train".
    """
    path = Path(name).expanduser()
    if not (path.is_file() or _is_one_saved(path)) or split.partition("[")[0] == "train":
        return
    reason = f"{name} is one split, 'train', and has no {split!r}: name a part of 'train', such as "
    reason += "'train[90%:]'"
    if setting == "dataset_test_split":
        reason += ", or name an eval_dataset_name"
    raise SettingError(reason, field=setting)


def with_named_columns(rows: Dataset, columns: Mapping[str, str], where: str) -> Dataset:
    """The rows with further columns, each another column or a part of one.

    Args:
        rows: the dataset; its own columns stay.
        columns: {new name: column}; a dot reads a part of a column: `reward_model.ground_truth`.
        where: the dataset's name, for errors.

    Raises:
        SettingError: there is no such column, or no column `prompt` among the result.
    """
    for name, path in columns.items():
        _check_column(rows.features, name, str(path), where)
    if "prompt" not in {*columns, *rows.column_names}:
        reason = f"{where} has no column 'prompt'; name the column that holds it"
        raise SettingError(f"{reason}: {', '.join(rows.column_names)}", field="columns.prompt")
    moved = {name: str(path) for name, path in columns.items() if name != path}
    if not moved:
        return rows
    return rows.map(lambda row: {name: _value(row, path) for name, path in moved.items()})


def _check_column(features: Mapping[str, Any], name: str, path: str, where: str) -> None:
    known: Any = features
    for part in path.split("."):
        if not isinstance(known, Mapping) or part not in known:
            meant = hint(part, list(known)) if isinstance(known, Mapping) else ""
            raise SettingError(f"{where} has no column {path!r}{meant}", field=f"columns.{name}")
        known = known[part]


def _value(row: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where a part of the path is null."""
    value: Any = row
    for part in path.split("."):
        value = None if value is None else value[part]
    return value


def with_prompts(
    rows: Dataset, *, system: str | None = None, template: str | None = None, chat: bool = True
) -> Dataset:
    """The rows with prompts as conversations, or as texts where `chat` is off.

    Args:
        rows: with a column `prompt` of texts or messages. Messages without a system turn get one,
            and are not changed otherwise.
        system: the system turn.
        template: the user's turn; `{prompt}` and other columns in braces are filled in.
        chat: whether a text becomes a user's turn.

    Raises:
        SettingError: a template that names no column, settings that messages or texts can't take,
            or a prompt that is neither.
    """
    first = rows[0]["prompt"] if len(rows) else ""
    if not isinstance(first, str) and template is not None:
        reason = "the prompts are already messages: this setting is for texts"
        raise SettingError(reason, field="prompt_template")
    if not chat and (system is not None or not isinstance(first, str)):
        reason = "needs conversations: leave chat on, or leave the system prompt out"
        raise SettingError(reason, field="chat")
    for name in _PLACE.findall(template or ""):
        if name not in rows.column_names:
            reason = f"no column {name!r}{hint(name, rows.column_names)}"
            raise SettingError(reason, field="prompt_template")
    if isinstance(first, str) and not chat and template is None:
        return rows
    return rows.map(
        lambda row, index: {"prompt": _prompt(row, system, template, chat, index)},
        with_indices=True,
    )


def _prompt(
    row: Mapping[str, Any], system: str | None, template: str | None, chat: bool, index: int
) -> Any:
    given = row["prompt"]
    if isinstance(given, str):
        text = given if template is None else _PLACE.sub(lambda m: str(row[m[1]]), template)
        if not chat:
            return text
        given = [{"role": "user", "content": text}]
    if not _is_conversation(given):
        reason = f"row {index}: expected a text, or messages of role and content, got {given!r:.80}"
        raise SettingError(reason, field="columns.prompt")
    turns = [{"role": turn["role"], "content": turn["content"]} for turn in given]
    if system is not None and turns[0]["role"] != "system":
        in_parts = not isinstance(turns[0]["content"], str)
        content = [{"type": "text", "text": system}] if in_parts else system
        turns.insert(0, {"role": "system", "content": content})
    return turns


def _is_conversation(given: Any) -> bool:
    turns = given if isinstance(given, Sequence) and not isinstance(given, str) else []
    known = (isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in turns)
    return len(turns) > 0 and all(known)


def within_length(rows: Dataset, tokenizer: Any, longest: int | None, **template: Any) -> Dataset:
    """The rows whose prompts have at most `longest` tokens, as the policy gets them.

    Args:
        rows: with a column `prompt`.
        tokenizer: the policy's.
        longest: None: all rows.
        template: what the chat template gets beside the messages, such as `tools`.

    Raises:
        SettingError: no prompt is short enough.
    """
    if longest is None:
        return rows
    kept = rows.filter(
        lambda row: len(prompt_ids_of(row["prompt"], tokenizer, **template)) <= longest
    )
    if not len(kept):
        reason = f"each of the {len(rows)} prompts has more than {longest} tokens"
        raise SettingError(reason, field="max_prompt_length")
    return kept
