"""What was sampled, scored and credited, as a file a generation in the format of rollouts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor

import stepcredit as sc
from stepcredit.data.files.jsonl import file_errors
from stepcredit.data.files.writing import write_rollouts
from stepcredit.data.masking import ends_to_response, tokens_to_response
from stepcredit.data.streams import Stream
from stepcredit.engines.logged_rows import extra_columns
from stepcredit.engines.texts import question_of
from stepcredit.engines.trl.responses import Asked
from stepcredit.errors import EngineError

Row = dict[str, Any]


@dataclass(frozen=True)
class Credited:
    """One process's part of a generation.

    Args:
        asked: its rows.
        present: (completion, token) bool, True on the model's own tokens.
        advantages: (completion, token), 0 off what the loss trains.
        rollouts: those of all processes.
        first: which of them row 0 is.
        rewards: name and value of each row's reward functions.
        truncated: which rows were cut off at the length limit.
    """

    asked: Asked
    present: Tensor
    advantages: Tensor
    rollouts: sc.Rollouts
    first: int
    rewards: list[dict[str, float | None]]
    truncated: list[bool]


def check_folder(folder: str | Path | None) -> None:
    """Refuse a folder that takes no file, before anything is generated; the first process asks.

    Args:
        folder: `rollouts_dir`, made if it is not there; None: rollouts are not kept.

    Raises:
        EngineError: it is no folder, or cannot be written.
    """
    if folder is None or not PartialState().is_main_process:
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"rollouts can't be written to {folder}: {error.strerror}"
        raise EngineError(reason, field="rollouts_dir") from None


def write_generation(folder: str | Path, label: str, credited: Credited) -> None:
    """Write a generation of all processes as `rollouts-LABEL.jsonl`; called on each of them.

    The rows hold text and tokens, the prompt's question and its tokens, each stream, log-probs,
    outcome, format, advantages, every reward, whether the row was cut off, and the columns of the
    dataset that can be written as JSON. A tool's tokens have `loss_mask` 0. The file is there whole
    or not at all, and written by the first process.

    Args:
        folder: made if it is not there.
        label: of the generation; its groups are `LABEL/NUMBER`.
        credited: this process's part.

    Raises:
        FileError: it can't be written.
    """
    rows = [row for part in gather_object([rows_of(label, credited)]) for row in part]
    if PartialState().is_main_process:
        with file_errors(str(folder)):
            Path(folder).mkdir(parents=True, exist_ok=True)
        write_rollouts(Path(folder) / f"rollouts-{label}.jsonl", rows)


def rows_of(label: str, credited: Credited) -> list[Row]:
    """This process's rows of the file."""
    rollouts, first = credited.rollouts, credited.first
    count = len(credited.present)
    own = rollouts.take(torch.arange(first, first + count))
    streams = {name: _by_row(stream) for name, stream in own.streams.items()}
    logprobs = {f"{name}_logprobs": _by_row(stream) for name, stream in own.logprobs.items()}
    ends = None if own.step_ends is None else own.step_ends.values.split(_counts(own.step_ends))
    groups = rollouts.group_index[first:].tolist()
    rows = []
    for row in range(count):
        response = credited.asked.unsplit[row]
        mask = credited.present[row, : response.num_tokens]
        line: Row = {"group": f"{label}/{groups[row]}", **_said(credited, row, mask)}
        if ends is not None:
            line["step_ends"] = ends_to_response(ends[row], mask)
        for name, parts in streams.items():
            _add_stream(line, name, parts[row], mask)
        known = {name: parts[row].values for name, parts in logprobs.items()}
        line |= {
            name: tokens_to_response(values, mask)
            for name, values in known.items()
            if values.numel()
        }
        line["outcome"] = _known(own.outcomes, row)
        line["format"] = _known(own.formats, row)
        line["format_ok"] = bool(own.format_ok[row])
        line["advantages"] = credited.advantages[row, : response.num_tokens]
        rows.append(line)
    return rows


def _said(credited: Credited, row: int, mask: Tensor) -> Row:
    """The dataset's columns, what was asked and answered, and what the rewards were."""
    asked, response = credited.asked, credited.asked.unsplit[row]
    data = extra_columns(asked.sampled.inputs[row], ("prompt", "completion"))
    line = {name: value for name, value in data.items() if _is_json(value)}
    line["prompt"] = _question(asked, row)
    line["prompt_ids"] = list(response.prompt_ids or ())
    line["text"], line["tokens"] = response.text, response.token_texts
    line["token_ids"] = list(response.token_ids or ())
    if not bool(mask.all()):
        line["loss_mask"] = mask.int().tolist()
    return line | {"rewards": credited.rewards[row], "truncated": credited.truncated[row]}


def _question(asked: Asked, row: int) -> str:
    """The question; of a prompt that has none, all of it."""
    try:
        return question_of(asked.sampled.prompts[row])
    except EngineError:
        return str(asked.tokenizer.decode(asked.sampled.prompt_ids[row]))


def _is_json(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return False
    return True


def _add_stream(line: Row, name: str, stream: Stream, mask: Tensor) -> None:
    """A process stream's members of a row, counted over all its tokens.

    A row without the stream has it under `signals` with empty lists, so that streams have the same
    order in the file as in the run.
    """
    kind = "advantages" if isinstance(stream, sc.TokenAdvantages) else "scores"
    has_any = bool(stream.values.numel())
    ends, values = None, stream.values
    if isinstance(stream, sc.Steps):
        ends = ends_to_response(stream.ends, mask) if has_any else []
    elif has_any:
        values = tokens_to_response(values, mask)
    if name == "process" and kind == "scores" and has_any:
        line |= {"step_ends": ends, "step_scores": values} if ends else {"token_scores": values}
        return
    own = {kind: values} | ({} if ends is None else {"ends": ends})
    line.setdefault("signals", {})[name] = own


def _by_row(stream: Stream) -> list[Stream]:
    return [stream.take(torch.tensor([row])) for row in range(len(stream.counts))]


def _counts(stream: Stream) -> list[int]:
    counts: list[int] = stream.counts.tolist()
    return counts


def _known(scalar: Any, row: int) -> float | None:
    return float(scalar.values[row]) if bool(scalar.known[row]) else None


def rewards_of(names: list[str], rewards: Tensor) -> list[dict[str, float | None]]:
    """Each row's rewards by name; None where a function gave none.

    Example:
        >>> rewards_of(["right"], torch.tensor([[1.0], [torch.nan]]))
        [{'right': 1.0}, {'right': None}]
    """
    known = [[None if value != value else value for value in row] for row in rewards.tolist()]
    return [dict(zip(names, row, strict=True)) for row in known]
