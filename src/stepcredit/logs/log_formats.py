"""The table of formats by their telling fields, and what to say of a file of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from stepcredit.errors import FileError, RolloutError, SettingError, StepCreditError
from stepcredit.logs.formats.chat_messages import MESSAGES
from stepcredit.logs.formats.lm_eval_samples import LM_EVAL
from stepcredit.logs.formats.prime_rl_tokens import PRIME_RL
from stepcredit.logs.formats.question_rollouts import QUESTION_ROLLOUTS
from stepcredit.logs.formats.qwen_eval import QWEN_EVAL
from stepcredit.logs.formats.slime_samples import SLIME
from stepcredit.logs.formats.swift_completions import SWIFT
from stepcredit.logs.formats.trl_completions import TRL
from stepcredit.logs.formats.verifiers_results import VERIFIERS
from stepcredit.logs.formats.verifiers_traces import TRACES
from stepcredit.logs.formats.verl_rollouts import VERL
from stepcredit.logs.log_files import ANY_FILES, files_of_log, is_read_again, records_of
from stepcredit.logs.logged_response import Record
from stepcredit.logs.reading_context import LogFormat
from stepcredit.logs.torch_dumps import DUMP
from stepcredit.prm.labelled.label_formats import recognized

LOG_FORMATS: dict[str, LogFormat] = {
    each.name: each
    for each in (
        SWIFT,
        TRL,
        VERL,
        SLIME,
        LM_EVAL,
        QWEN_EVAL,
        TRACES,
        VERIFIERS,
        PRIME_RL,
        MESSAGES,
        QUESTION_ROLLOUTS,
    )
}
"""By name; the first that fits a row's fields is the row's."""
GSM8K = "gsm8k-solutions"
"""A data set, read by `signals.programs.gsm8k`."""
_PATTERNS = (*TRL.patterns, *ANY_FILES, *PRIME_RL.patterns)


def name_of_log(path: str | Path) -> str:
    """The name of a file's format, by the fields of its first objects; of a folder's first file.

    Raises:
        FileError: it is no log that is known; the message says what it looks like.
    """
    if not is_read_again(path):
        what = "standard input" if str(path) == "-" else f"{path}, which can be read only once"
        raise SettingError(f"--from: name the format of {what}")
    for file in files_of_log(path, _PATTERNS):
        firsts = _firsts(file)
        found = next(filter(None, (_name(each.fields) for each in firsts)), None)
        if found is not None:
            return found
        if firsts:
            raise FileError(f"{path}: {_other_kind(firsts[0].fields, str(path))}")
    raise FileError(f"{path}: there are no rollouts in it")


def log_format(name: str) -> LogFormat:
    """The format of that name.

    Raises:
        SettingError: there is none.
    """
    if name not in LOG_FORMATS:
        known = ", ".join([*LOG_FORMATS, GSM8K])
        raise SettingError(f"--from {name}: unknown format: expected one of {known}")
    return LOG_FORMATS[name]


def kind_of_file(path: str | Path) -> str | None:
    """What a file that is no file of rollouts looks like, and which command reads it.

    Returns:
        None where it is a file of rollouts, or of no kind that is known.
    """
    if str(path).endswith(DUMP):
        return f"is a file of torch.save: {_made_by_convert(path)} of a trainer's dump"
    with suppress(StepCreditError, OSError):
        first = next(iter(_firsts(str(path))), None)
        if first is None or "group" in first.fields:
            return None
        name = _name(first.fields)
        if name is not None:
            return f"looks like {name}: {_made_by_convert(path)} of it"
        return _labelled(first.fields, str(path))
    return None


def _made_by_convert(path: str | Path) -> str:
    return f"`stepcredit convert {path} -o rollouts.jsonl` makes rollouts"


def labelled_format(path: str | Path) -> str | None:
    """The format of a file of step-labelled rows; None where it is a file of another kind.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "rows.jsonl"
        >>> _ = path.write_text('{"prompt": "1+1?", "completions": ["2"], "labels": [true]}')
        >>> labelled_format(path)
        'stepwise'
    """
    if str(path).endswith(DUMP):
        return None
    with suppress(StepCreditError, OSError):
        first = next(iter(_firsts(str(path))), None)
        if first is not None and "group" not in first.fields and _name(first.fields) is None:
            return recognized(dict(first.fields))
    return None


def _firsts(file: str) -> list[Record]:
    """The first objects of a file: a list in the very first may be empty."""
    if not is_read_again(file):
        return []
    return list(islice((each for each in records_of(file) if isinstance(each, Record)), 5))


def _name(fields: Mapping[str, Any]) -> str | None:
    if "group" in fields:
        return None
    named = (name for name, each in LOG_FORMATS.items() if each.fits(fields))
    return next(named, GSM8K if _is_gsm8k(fields) else None)


def _is_gsm8k(fields: Mapping[str, Any]) -> bool:
    solved = [value for value in fields.values() if isinstance(value, dict)]
    return "ground_truth" in fields and any("is_correct" in each for each in solved)


def _labelled(fields: Mapping[str, Any], path: str) -> str | None:
    """What step-labelled rows look like; None where the fields are of no such format."""
    try:
        kind = recognized(dict(fields))
    except RolloutError:
        return None
    return f"looks like step-labelled rows ({kind}): `stepcredit prm eval {path}` reads them"


def _other_kind(fields: Mapping[str, Any], path: str) -> str:
    if "group" in fields:
        return "is a file of rollouts already"
    if (labelled := _labelled(fields, path)) is not None:
        return labelled
    names = ", ".join(list(fields)[:8])
    return f"the fields of no log that is known: it has {names}; --from NAME names the format"
