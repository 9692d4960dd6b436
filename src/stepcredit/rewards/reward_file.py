"""Writes rewards into a rollout file; all other bytes of the file are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

from stepcredit._moved import reads_old_keyword
from stepcredit.data.files.batches import Batch
from stepcredit.data.files.file_tally import all_gated
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.files.score_store import ScoreStore
from stepcredit.errors import RolloutError, RowError, SettingError
from stepcredit.rewards.base import Reward
from stepcredit.rewards.formats import TEMPLATES, Format


class _Checked(NamedTuple):
    """What the first pass over a file finds: its rows, and those whose facts can't be used."""

    rows: int
    unreadable: list[RowError]
    refused: list[RowError]


@reads_old_keyword("told", "progress")
def reward_file(
    path: str | Path,
    output: str | Path | None,
    rewards: Sequence[Reward],
    *,
    text: str = "text",
    journal: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    reading: Callable[[float], None] | None = None,
    warn: Callable[[str], None] | None = None,
    unreadable: Callable[[RowError], None] | None = None,
) -> int:
    """Write the rows of a file with their rewards: `outcome`, or `format` and `format_ok`.

    All rows are checked before the first is graded, with all gold answers. They need a text, but no
    tokens.

    Args:
        path: a `.jsonl`, `.jsonl.gz` or `.parquet` file, or "-".
        output: a path of the same kinds; it may be the same file. None: nothing is graded or
            written, only checked.
        rewards: at most one outcome reward and one format reward. The fields of a row are the
            facts.
        text: the field that holds the response's text.
        journal: a file that keeps each reward as soon as it is known, so that a later run can
            continue after a stop.
        progress: called with the number of rows graded and the number of all rows.
        reading: called with the fraction of the file that was read, while it is checked.
        warn: called with one line where all responses broke the format.
        unreadable: called for each row whose facts can't be used, before the first is graded.

    Returns:
        Number of rows.

    Raises:
        SettingError: two rewards write the same field.
        RowError: the first fault in the file, or the first gold answer that can't be read, if the
            reward refuses those; the output file does not change then.
        FileError: a file cannot be read or written.
    """
    _check_kinds(rewards)
    watch = FormatWatch(rewards, text)
    with RolloutFile(path, reading, needs_tokens=False) as file, ExitStack() as opened:
        checked = _check_rows(file, rewards, text, unreadable)
        if output is None:
            return checked.rows
        _refuse(checked)
        store = None if journal is None else opened.enter_context(ScoreStore(journal))
        done = 0

        def compute(batch: Batch) -> list[Mapping[str, Any]]:
            nonlocal done
            found = _kept(batch, rewards, text, store)
            watch.add(batch, found)
            done += len(found)
            if progress:
                progress(done, checked.rows)
            return found

        written = file.annotate(output, compute)
    if warn is not None and watch.warning:
        warn(f"{path}: {watch.warning}")
    return written


class FormatWatch:
    """Whether all responses of a file broke the format, and whether another template fits them.

    Args:
        rewards: those of the file.
        text: the field that holds the response's text.
    """

    def __init__(self, rewards: Sequence[Reward], text: str) -> None:
        named = (rule.template for rule in rewards if isinstance(rule, Format))
        self._other = next((f"prefilled-{each}" for each in named if isinstance(each, str)), "")
        self._text = text
        self._rows, self._broken, self._fit_other = 0, 0, 0

    def add(self, batch: Batch, found: Sequence[Mapping[str, Any]]) -> None:
        """Count a batch's rows with their new fields."""
        self._rows += len(found)
        self._broken += sum(not members.get("format_ok", True) for members in found)
        if self._broken == self._rows and self._other in TEMPLATES:
            self._fit_other += sum(
                map(bool, map(TEMPLATES[self._other], _texts(batch, self._text)))
            )

    @property
    def warning(self) -> str:
        """One line where no response has the format, else empty."""
        if not self._rows or self._broken < self._rows:
            return ""
        if not self._fit_other:
            return all_gated(self._rows)
        fit = f"The template {self._other} fits {self._fit_other} of the responses"
        return f"{all_gated(self._rows)} {fit}; it is for prompts that end with `<think>`"


def _check_rows(
    file: RolloutFile,
    rewards: Sequence[Reward],
    text: str,
    unreadable: Callable[[RowError], None] | None,
) -> _Checked:
    """Check all rows, and name those whose facts can't be used."""

    def step(state: _Checked, batch: Batch) -> _Checked:
        facts = [row.fields for row in batch.rows]
        unread: dict[int, RolloutError] = {}
        refused: dict[int, RolloutError] = {}
        for rule in rewards:
            unread |= rule.unreadable_facts(facts) if unreadable else {}
            refused |= rule.refused_facts(facts)
        rows = state.rows + len(_texts(batch, text))
        found = [_row_errors(file, batch, faults) for faults in (unread, refused)]
        return _Checked(rows, state.unreadable + found[0], state.refused + found[1])

    checked = file.fold(lambda: _Checked(0, [], []), step)
    for error in sorted(checked.unreadable, key=lambda error: error.line):
        if unreadable:
            unreadable(error)
    return checked


def _row_errors(
    file: RolloutFile, batch: Batch, faults: Mapping[int, RolloutError]
) -> list[RowError]:
    return [error.at_line(file.path, batch.rows[row].line) for row, error in faults.items()]


def _refuse(checked: _Checked) -> None:
    """Refuse a file for its first gold answer that can't be read; the message names the options."""
    if not checked.refused:
        return
    first, count = min(checked.refused, key=lambda error: error.line), len(checked.refused)
    reason = first.reason
    if count < checked.rows:
        reason += (
            f"; {count} of {checked.rows} gold answers are like this: --check-golds prints them, "
            "--set unreadable=unknown leaves their outcomes unknown"
        )
    more = 0 if count < checked.rows else count - 1
    raise RowError(reason, path=first.path, line=first.line, field=first.field, more=more)


def _check_kinds(rewards: Sequence[Reward]) -> None:
    taken: dict[str, str] = {}
    for rule in rewards:
        if rule.gives in taken:
            reason = f"{taken[rule.gives]} and {rule.name} both give the {rule.gives}"
            raise SettingError(reason, field="reward")
        taken[rule.gives] = rule.name


def _texts(batch: Batch, name: str) -> list[str]:
    texts = [row.fields.get(name) for row in batch.rows]
    for row, value in enumerate(texts):
        if not isinstance(value, str):
            wrong = f"expected a string, got {value!r}"
            reason = "missing: rewards read it" if value is None else wrong
            raise RolloutError(reason, row=row, field=name)
    return [value for value in texts if isinstance(value, str)]


def _kept(
    batch: Batch, rewards: Sequence[Reward], text: str, store: ScoreStore | None
) -> list[Mapping[str, Any]]:
    """The new fields of each row: from the journal if it has them, else graded now."""
    if store is None:
        return _graded(batch, rewards, text)
    keys = [_key(row.fields, rewards, text) for row in batch.rows]
    known = store.get(keys)
    new = [place for place, key in enumerate(keys) if key not in known]
    graded = _graded(Batch([batch.rows[place] for place in new]), rewards, text) if new else []
    for place, members in zip(new, graded, strict=True):
        known[keys[place]] = [nan if value is None else float(value) for value in members.values()]
        store.put(keys[place], known[keys[place]])
    if len(new) < len(keys):
        rewards[0].tally["kept by an earlier run"] += len(keys) - len(new)
    return [_members(rewards, known[key]) for key in keys]


def _key(row: Mapping[str, Any], rewards: Sequence[Reward], text: str) -> bytes:
    return sha256(repr((list(rewards), text, row)).encode(errors="surrogatepass")).digest()


def _members(rewards: Sequence[Reward], numbers: Sequence[float]) -> Mapping[str, Any]:
    rest = iter(numbers)
    members: dict[str, Any] = {}
    for rule in rewards:
        value = next(rest)
        members[rule.gives] = None if isnan(value) else value
        if rule.gives == "format":
            members["format_ok"] = bool(next(rest))
    return members


def _graded(batch: Batch, rewards: Sequence[Reward], text: str) -> list[Mapping[str, Any]]:
    """Grade each row; its new fields."""
    texts, facts = _texts(batch, text), [row.fields for row in batch.rows]
    columns: dict[str, Sequence[float | None]] = {}
    for rule in rewards:
        values = rule(texts, facts)
        if rule.gives == "outcome":
            columns["outcome"] = values
            continue
        kept = [value is not None and value >= rule.passing for value in values]
        columns |= {"format": values, "format_ok": kept}
    return [{name: values[at] for name, values in columns.items()} for at in range(len(texts))]
