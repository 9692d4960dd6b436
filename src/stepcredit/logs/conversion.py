"""Logged responses as rows of rollouts: groups, rewards, tokens; what can't be used is left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any

from stepcredit.data.files.file_tally import alone_in_groups
from stepcredit.data.files.rows import check_row
from stepcredit.data.rules import PARTLY_UNKNOWN, fits_float32
from stepcredit.errors import FileError, RolloutError, RowError, SettingError
from stepcredit.logs.carried_columns import extra_columns, is_writable, writable
from stepcredit.logs.log_files import files_of_log, records_of
from stepcredit.logs.log_notes import LogNotes
from stepcredit.logs.logged_response import LoggedResponse, Record, RewardColumns
from stepcredit.logs.prompt_tokens import prompt_token_ids
from stepcredit.logs.reading_context import LogFormat, ReadingContext
from stepcredit.logs.tool_marks import ToolMarks
from stepcredit.signals.offsets import pieces_of_spans
from stepcredit.signals.row_scores import RowReader

NO_REWARDS = frozenset(
    {"step", "gen_step", "global_step", "rollout_id", "advantage", "advantages", "index", "idx"}
    | {"id", "example_id", "prompt_id", "group_id", "group_index", "doc_id"}
)
"""Columns of numbers that are no rewards."""
NO_OUTCOME = (
    "the log has no column of numbers that may be a reward, so that outcomes are unknown; "
    "--outcome COLUMN names one"
)
TOKENIZED_ANEW = (
    "{n} without logged token ids: the tokenizer makes tokens of the text, which can be more or "
    "fewer than were sampled"
)
SMALLEST_OF_TWO = 4
"""Responses of two groups of one prompt, each of which has something to compare."""
UNKNOWN_GROUPS = (
    "the log names no groups, so that responses to one prompt in a step are one group (%s "
    "responses); if a prompt was sampled more than once in a step, --group-size N cuts them"
)


class LogConversion:
    """The rows of a log, and what was left out or taken for granted.

    Args:
        path: a file or a folder of files.
        format: the log's format.
        columns: the reward columns and other options.
        tokenizer: the policy's; None: words are the tokens.

    Raises:
        SettingError: tool marks of another form.
    """

    def __init__(
        self,
        path: str | Path,
        format: LogFormat,
        columns: RewardColumns | None = None,
        tokenizer: Any = None,
    ) -> None:
        self.path, self.format = str(path), format
        columns = columns or RewardColumns()
        self.context = ReadingContext(columns, tokenizer, LogNotes(), ToolMarks(columns.tool_marks))
        self._reader = RowReader(tokenizer)
        self._numbers: Counter[str] = Counter()
        self._sizes: Counter[str] = Counter()
        self._unnamed: Counter[int] = Counter()
        self._is_scattered = False
        self._reward_names: frozenset[str | None] = frozenset()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows of rollouts in the log's order; groups are labelled `STEP/NUMBER`.

        Raises:
            FileError: a file can't be read, or no row is left.
            RowError: no row is left: the first fault.
            SettingError: a column does not exist, or several might be the outcome.
        """
        for file in files_of_log(self.path, self.format.patterns):
            yield from self.rows_of_file(file)
        if not self._sizes:
            raise self.context.notes.first_fault or FileError(
                f"{self.path}: there are no rollouts in it"
            )

    def notes(self) -> list[str]:
        """What was left out or taken for granted in the rows so far, one line each."""
        found = list(self.context.notes.lines())
        if self._may_hold_several():
            sizes = sorted({min(self._unnamed), max(self._unnamed)})
            found.append(f"{self.path}: {UNKNOWN_GROUPS % ' to '.join(map(str, sizes))}")
        if self._sizes and max(self._sizes.values()) == 1:
            found.append(f"{self.path}: {alone_in_groups()}")
        return found

    def _may_hold_several(self) -> bool:
        """Whether a group without an id may be two: of 4 or more, of other sizes, or scattered."""
        largest = max(self._unnamed, default=0)
        doubtful = largest >= SMALLEST_OF_TWO or len(self._unnamed) > 1 or self._is_scattered
        return largest > 1 and doubtful

    def rows_of_file(self, file: str) -> Iterator[dict[str, Any]]:
        """Rows of rollouts of one of the log's files; files are read in their order.

        Raises:
            FileError: the file can't be read.
            RowError: the file holds rows of an evaluation.
            SettingError: a column does not exist, or several might be the outcome.
        """
        logged = list(self._logged(file))
        outcome, format = _names_of_rewards(logged, self.context.columns, file)
        if logged and outcome is None:
            outcome = self._only_reward(logged, format, file)
        names = outcome, format
        self._reward_names = frozenset(names)
        labels = self._labels(logged)
        rewards = [self._rewards(each, names) for each in logged]
        usable = self._usable(logged, labels, rewards)
        left: Counter[str] = Counter()
        for each, label, own, is_usable in zip(logged, labels, rewards, usable, strict=True):
            row = self._row(each, label, own) if is_usable else None
            if row is not None:
                left[label] += 1
                yield row
        for label, size in Counter(labels).items():
            self._sizes[label] += left[label]
            if left[label] < size:
                self.context.notes.shrink(label, left[label], size)
        self._sizes = +self._sizes

    def _only_reward(
        self, logged: Sequence[LoggedResponse], format: str | None, file: str
    ) -> str | None:
        """The only column of numbers; None where there is none.

        Raises:
            SettingError: there are several.
        """
        numbers = _columns_of(int | float, logged) - {format}
        if len(numbers) > 1:
            found = ", ".join(sorted(numbers))
            reason = f"name the column of the outcome reward: {file} has {found}"
            raise SettingError(f"--outcome: {reason}")
        outcome = next(iter(numbers), None)
        if outcome is None:
            self.context.notes.add(NO_OUTCOME, file)
            return None
        texts = _columns_of(str, logged)
        others = sorted(
            name for name in texts if all(_is_number(each.rewards.get(name)) for each in logged)
        )
        if others:
            what = f"{outcome} is the outcome; {', '.join(others)} holds numbers as text"
            self.context.notes.add(f"{what}; --outcome COLUMN names another", file)
        return outcome

    def _logged(self, file: str) -> Iterator[LoggedResponse]:
        """The responses of a file; what can't be read is noted."""
        records: list[Record] = []
        for found in records_of(file):
            if isinstance(found, RowError):
                self.context.notes.leave_out(found)
            else:
                records.append(found)
        for record in self.format.select(records, self.context):
            try:
                yield from list(self.format.read(record, self.context))
            except RowError as error:
                self.context.notes.leave_out(error)

    def _labels(self, logged: Sequence[LoggedResponse]) -> list[str]:
        """Each response's group: one per step and key, cut into `group_size` where it is given.

        Raises:
            RowError: a key has no multiple of `group_size`.
        """
        size, places = self.context.columns.group_size, defaultdict[Hashable, list[int]](list)
        for at, each in enumerate(logged):
            places[str(each.step), each.key].append(at)
        if size is None:
            for rows in places.values():
                if not logged[rows[0]].has_id:
                    self._unnamed[len(rows)] += 1
                    self._is_scattered |= rows[-1] - rows[0] >= len(rows)
        labels = [""] * len(logged)
        for rows in places.values():
            first = logged[rows[0]]
            if size is not None and len(rows) % size:
                reason = f"{len(rows)} responses to this prompt, not a multiple of {size}"
                raise first.record.fault(reason, "group")
            for start in range(0, len(rows), size or len(rows)):
                label = self._next_label(first)
                for at in rows[start : start + (size or len(rows))]:
                    labels[at] = label
        return labels

    def _next_label(self, first: LoggedResponse) -> str:
        """The next label of a step; numbers go on where a later file has the same step."""
        step = "" if first.step is None else f"{first.step}/"
        self._numbers[step] += 1
        return f"{step}{self._numbers[step] - 1}"

    def _rewards(
        self, each: LoggedResponse, names: tuple[str | None, str | None]
    ) -> dict[str, float | RowError | None]:
        fields = zip(("outcome", "format"), names, strict=True)
        return {
            field: self._number(each, name, name if name in each.rewards else field)
            for field, name in fields
            if name is not None
        }

    def _number(self, each: LoggedResponse, name: str, field: str) -> float | RowError | None:
        """A reward; None where the log has none; an error where it is no number."""
        value = each.rewards.get(name)
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                pass
            else:
                self.context.note(f"{name}: {{n}} with a number written as text: read", each.record)
        if value is None or value != value:
            return None
        if not isinstance(value, int | float):
            return each.record.fault(f"expected a number, got {value!r:.60}", field)
        if not fits_float32(value):
            return each.record.fault(f"{value} is not a finite number", field)
        return float(value)

    def _usable(
        self,
        logged: Sequence[LoggedResponse],
        labels: Sequence[str],
        rewards: Sequence[Mapping[str, Any]],
    ) -> list[bool]:
        """Which responses can be used; the others are noted."""
        known = {
            (label, name)
            for label, own in zip(labels, rewards, strict=True)
            for name, value in own.items()
            if isinstance(value, float)
        }
        usable = []
        for each, label, own in zip(logged, labels, rewards, strict=True):
            fault = _fault_of(each, label, own, known)
            usable.append(fault is None)
            if fault is None:
                self._note_unknown(each, own)
            else:
                self.context.notes.leave_out(fault)
        return usable

    def _note_unknown(self, each: LoggedResponse, own: Mapping[str, Any]) -> None:
        """Note a reward that is unknown for the whole group of a response."""
        for name, value in own.items():
            if value is None:
                what = "{n} with an unknown reward, as all of their group: written as null"
                self.context.note(f"{name}: {what}", each.record)

    def _row(
        self, each: LoggedResponse, label: str, own: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """A row of rollouts; None, and a note, where it breaks a rule of the format."""
        try:
            row = {"group": label, "prompt": each.prompt, **self._extras(each), **each.row, **own}
            row |= self._prompt_ids(each) | self._tokens(each)
            check_row(row)
        except RolloutError as error:
            self.context.notes.leave_out(each.record.fault(error.reason, error.field))
            return None
        return row

    def _extras(self, each: LoggedResponse) -> dict[str, Any]:
        """The logged columns, without numbers that JSON can't hold."""
        found = extra_columns(each.rewards, ())
        for name, value in list(found.items()):
            if value is None or (name in self._reward_names and value != value):
                del found[name]
        for name, value in found.items():
            if not is_writable(value):
                found[name] = writable(value)
                what = f"{name}: {{n}} with a number that is not finite: written as null"
                self.context.note(what, each.record)
        return found

    def _prompt_ids(self, each: LoggedResponse) -> dict[str, Any]:
        """The prompt's token ids, where the tokenizer shows what they were."""
        if self.context.tokenizer is None or "prompt_ids" in each.row or not each.asked:
            return {}
        ids = prompt_token_ids(each.asked, self.context.tokenizer)
        if ids is not None:
            return {"prompt_ids": ids}
        if each.asked != each.prompt:
            what = "{n} to prompts whose tokens the tokenizer does not show: without prompt_ids, "
            what += "log-probs are those behind the bare question"
            self.context.note(what, each.record)
        return {}

    def _tokens(self, each: LoggedResponse) -> dict[str, Any]:
        """Text and tokens; the loss mask too, if tools wrote some of the tokens."""
        if not each.parts:
            return {}
        row: dict[str, Any] = {"text": "".join(text for text, _ in each.parts)}
        if "token_ids" in each.row:
            return row | self._token_texts({**row, **each.row})
        if self.context.tokenizer is not None:
            self.context.note(TOKENIZED_ANEW, each.record)
        parts = [self._reader.with_tokens({"text": text}) for text, _ in each.parts]
        kinds = [kind for kind in ("tokens", "token_ids") if any(kind in part for part in parts)]
        row |= {kind: [token for part in parts for token in part[kind]] for kind in kinds}
        sizes = [len(part[kinds[0]]) for part in parts]
        if not any(size for size, (_, own) in zip(sizes, each.parts, strict=True) if own):
            raise RolloutError("holds no token", field="text")
        if not all(own for _, own in each.parts):
            flags = zip(sizes, each.parts, strict=True)
            row["loss_mask"] = [int(own) for size, (_, own) in flags for _ in range(size)]
        return row | self._step_scores(each, sizes)

    def _token_texts(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The texts of logged token ids, where a tokenizer is given.

        Raises:
            RolloutError: the tokenizer makes another text of them.
        """
        if self.context.tokenizer is None:
            return {}
        response = self._reader.response(row)
        return {"text": response.text, "tokens": pieces_of_spans(response.text, response.spans)}

    def _step_scores(self, each: LoggedResponse, sizes: Sequence[int]) -> dict[str, Any]:
        """Labels of the policy's turns as step scores; each step ends with its turn."""
        labels = each.step_labels
        if not labels:
            return {}
        turns = [at for at, (text, own) in enumerate(each.parts) if own and sizes[at]]
        if set(labels) != set(turns):
            what = "step_labels: {n} with labels of some of the policy's turns only: not written"
            self.context.note(what, each.record)
            return {}
        ends = [sum(sizes[: at + 1]) - 1 for at in turns]
        if ends[-1] != sum(sizes) - 1:  # a tool has the last word: it belongs to the last step
            ends[-1] = sum(sizes) - 1
        return {"step_ends": ends, "step_scores": [labels[at] for at in turns]}


def _fault_of(
    each: LoggedResponse, label: str, own: Mapping[str, Any], known: set[tuple[str, str]]
) -> RowError | None:
    """Why a response can't be used: it is empty, or a reward of it is no number or unknown."""
    if each.fault is not None:
        return each.fault
    if each.is_empty:
        return each.record.fault("is empty: a response needs at least one token", "text")
    for name, value in own.items():
        if isinstance(value, RowError):
            return value
        if value is None and (label, name) in known:
            return each.record.fault(PARTLY_UNKNOWN, name)
    return None


def _names_of_rewards(
    logged: Sequence[LoggedResponse], columns: RewardColumns, file: str
) -> tuple[str | None, str | None]:
    """The columns of the outcome and of the format.

    Raises:
        SettingError: there is no such column, or several might be the outcome.
    """
    if not logged:
        return None, None
    there = {name: value for each in logged for name, value in each.rewards.items()}
    for option, name in (("--outcome", columns.outcome), ("--format", columns.format)):
        if name is not None and name not in there:
            raise SettingError(f"{option} {name}: no such column in {file}: {_numeric(logged)}")
    default = next((each.default_outcome for each in logged if each.default_outcome), None)
    return columns.outcome or default, columns.format


def _numeric(logged: Sequence[LoggedResponse]) -> str:
    names = dict.fromkeys(
        name
        for each in logged
        for name, value in each.rewards.items()
        if isinstance(value, int | float)
    )
    return f"numbers are {', '.join(names) or 'none at all'}"


def _columns_of(kinds: type | UnionType, logged: Sequence[LoggedResponse]) -> set[str]:
    """The columns that may be rewards and hold a value of these kinds."""
    return {
        name
        for each in logged
        for name, value in each.rewards.items()
        if name not in NO_REWARDS and isinstance(value, kinds) and not isinstance(value, bool)
    }


def _is_number(text: Any) -> bool:
    try:
        return isfinite(float(text))
    except (TypeError, ValueError):
        return False
