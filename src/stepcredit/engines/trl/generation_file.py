"""Writes each generation to a rollout file."""

from __future__ import annotations

import tempfile
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
from stepcredit.data.states import FIELD as STATES
from stepcredit.data.streams import Stream
from stepcredit.data.trajectories import FIELD as TRAJECTORY
from stepcredit.engines.texts import question_of
from stepcredit.engines.trl.generation import Generation
from stepcredit.engines.trl.signal_streams import trained_states
from stepcredit.errors import EngineError
from stepcredit.logs.carried_columns import extra_columns

Row = dict[str, Any]
PREFIX = "rollouts-"


def _path_of(folder: str | Path) -> Path:
    """The folder, where `~` is the user's home."""
    return Path(folder).expanduser()


def check_folder(folder: str | Path | None) -> None:
    """Refuse a folder in which no file can be written; the first process checks, before training.

    Args:
        folder: `rollouts_dir`, made if it does not exist; None: rollouts are not kept.

    Raises:
        EngineError: it is no folder, or can't be written to.
    """
    if folder is None or not PartialState().is_main_process:
        return
    try:
        _path_of(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=_path_of(folder)):
            pass
    except OSError as error:
        reason = f"rollouts can't be written to {folder}: {error.strerror}"
        raise EngineError(reason, field="rollouts_dir") from None
    except TypeError:
        raise EngineError(f"expected a folder, got {folder!r}", field="rollouts_dir") from None


def check_no_rollouts(folder: str | Path | None) -> None:
    """Refuse a folder that holds the rollouts of an earlier run: a new run would overwrite them.

    Args:
        folder: `rollouts_dir`; None: rollouts are not kept.

    Raises:
        EngineError: names a file.
    """
    there = [] if folder is None else sorted(_path_of(folder).glob(f"{PREFIX}*.jsonl"))
    if there:
        reason = f"{there[0]} is of an earlier run: name another folder, or move its files"
        raise EngineError(reason, field="rollouts_dir")


def set_rollouts_aside(folder: str | Path | None) -> Path | None:
    """Move the rollouts in a folder into a folder `earlier-NUMBER` within it.

    Args:
        folder: `rollouts_dir`; None: rollouts are not kept.

    Returns:
        The folder they are in now; None where there were none.
    """
    there = [] if folder is None else sorted(_path_of(folder).glob(f"{PREFIX}*.jsonl"))
    if folder is None or not there:
        return None
    number = 1 + len(list(_path_of(folder).glob("earlier-*")))
    target = _path_of(folder) / f"earlier-{number}"
    with file_errors(str(target)):
        target.mkdir()
        for path in there:
            path.rename(target / path.name)
    return target


def write_generation(
    folder: str | Path,
    label: str,
    generation: Generation,
    *,
    names: list[str],
    truncated: list[bool],
) -> None:
    """Write a generation of all processes as `rollouts-LABEL.jsonl`; called on each of them.

    The rows hold text and tokens, the prompt's question and its tokens, each stream, log-probs,
    outcome, format, advantages, every reward, whether the row was cut off, and the columns of the
    dataset that can be written as JSON. A tool's tokens have `loss_mask` 0. The first process
    writes the file, all of it or nothing.

    Args:
        folder: made if it does not exist.
        label: of the generation; its groups are `LABEL/NUMBER`.
        generation: this process's part, credited.
        names: of the reward functions.
        truncated: which rows were cut off at the length limit.

    Raises:
        FileError: the file can't be written.
    """
    own = rollout_rows(label, generation, names=names, truncated=truncated)
    rows = [row for part in gather_object([own]) for row in part]
    if PartialState().is_main_process:
        with file_errors(str(folder)):
            _path_of(folder).mkdir(parents=True, exist_ok=True)
        write_rollouts(_path_of(folder) / f"{PREFIX}{label}.jsonl", rows)


def rollout_rows(
    label: str, generation: Generation, *, names: list[str], truncated: list[bool]
) -> list[Row]:
    """This process's rows of the file.

    Args:
        label: of the generation.
        generation: this process's part, credited.
        names: of the reward functions.
        truncated: which rows were cut off at the length limit.
    """
    rollouts = generation.rollouts
    own = rollouts.take(generation.own_rollouts)
    streams = {name: _by_row(stream) for name, stream in own.streams.items()}
    logprobs = {f"{name}_logprobs": _by_row(stream) for name, stream in own.logprobs.items()}
    ends = None
    if own.step_ends is not None:
        ends = own.step_ends.values.split(own.step_ends.counts.tolist())
    states = trained_states(generation)
    groups = rollouts.group_index[generation.first :].tolist()
    rewards = rewards_by_name(names, generation.rewards[generation.own_rollouts])
    rows = []
    for row, response in enumerate(generation.responses_before_splitting):
        mask = generation.policy_tokens[row, : response.num_tokens]
        line: Row = {"group": f"{label}/{groups[row]}", **_texts(generation, row)}
        if generation.trajectory is not None:
            line[TRAJECTORY] = generation.trajectory[row]
        if not bool(mask.all()):
            line["loss_mask"] = mask.int().tolist()
        line |= {"rewards": rewards[row], "truncated": truncated[row]}
        if ends is not None:
            line["step_ends"] = ends_to_response(ends[row], mask)
        if states is not None:
            line[STATES] = states[row]
        for name, parts in streams.items():
            _add_stream(line, name, parts[row], mask)
        known = {name: parts[row].values for name, parts in logprobs.items()}
        line |= {
            name: tokens_to_response(values, mask)
            for name, values in known.items()
            if values.numel()
        }
        line["outcome"] = _value_if_known(own.outcomes, row)
        line["format"] = _value_if_known(own.formats, row)
        line["format_ok"] = bool(own.format_ok[row])
        line["advantages"] = generation.advantages[row, : response.num_tokens]
        rows.append(line)
    return rows


def _texts(generation: Generation, row: int) -> Row:
    """The dataset's columns, and the prompt and the response as texts and tokens."""
    response = generation.responses_before_splitting[row]
    given = dict(generation.inputs[row])
    for name, known in ((TRAJECTORY, generation.trajectory), (STATES, generation.states)):
        if name in given:
            own = given.pop(name)
            if known is None:  # a column of the data set
                given[f"logged_{name}"] = own
    data = extra_columns(given, ("prompt", "completion"))
    line = {name: value for name, value in data.items() if _is_json(value)}
    line["prompt"] = _question(generation, row)
    line["prompt_ids"] = list(response.prompt_ids or ())
    line["text"], line["tokens"] = response.text, response.token_texts
    line["token_ids"] = list(response.token_ids or ())
    return line


def _question(generation: Generation, row: int) -> str:
    """The question of the prompt; the whole prompt where it has none."""
    try:
        return question_of(generation.prompts[row])
    except EngineError:
        return str(generation.tokenizer.decode(generation.prompt_ids[row]))


def _is_json(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return False
    return True


def _add_stream(line: Row, name: str, stream: Stream, mask: Tensor) -> None:
    """Add a process stream's values for one row, counted over all its tokens.

    A row without the stream gets it under `signals` with empty lists, so that streams have the same
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


def _value_if_known(scalar: Any, row: int) -> float | None:
    return float(scalar.values[row]) if bool(scalar.known[row]) else None


def rewards_by_name(names: list[str], rewards: Tensor) -> list[dict[str, float | None]]:
    """Each row's rewards by name; None where a function gave none.

    Example:
        >>> rewards_by_name(["right"], torch.tensor([[1.0], [torch.nan]]))
        [{'right': 1.0}, {'right': None}]
    """
    known = [[None if value != value else value for value in row] for row in rewards.tolist()]
    return [dict(zip(names, row, strict=True)) for row in known]
