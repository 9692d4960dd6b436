"""What an attack found, as a part of the audit of the same responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import orjson

from stepcredit.audit.attack.attack_report import AT_THE_EDIT, ATTACK_SCHEMA
from stepcredit.audit.attack.attacked_keys import response_key
from stepcredit.audit.attack.earnings import AttackVerdict, EarnedChange, attack_verdict
from stepcredit.audit.audit_report import AuditReport
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding
from stepcredit.audit.group_means import FEWEST_GROUPS
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.data.files.jsonl import file_errors
from stepcredit.data.rules import counted
from stepcredit.errors import FileError
from stepcredit.evals.intervals import t_quantile

ATTACK_CHECK = "attack"
"""Name of the attack among the checks of a report."""
AT_ONE_EDIT = "change of the advantage at the edit {}"
MEAN_SCORE = "mean"
SMALLEST_PAID = 0.1
"""A mean change at the edit below this is no finding: advantages are usually about 1."""
Changes = Mapping[str, EarnedChange | None]


@dataclass(frozen=True)
class EditRow:
    """What one edit earned, as the JSON of an attack says it.

    Args:
        edit, about, harmful, applied, left_out: as in `EditEarnings`.
        scores: change of each figure of the response's scores.
        advantages: by method, change of each figure of its advantages.
    """

    edit: str
    about: str
    harmful: bool
    applied: int
    left_out: Mapping[str, int]
    scores: Changes
    advantages: Mapping[str, Changes]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> EditRow:
        """The edit as it stands in the JSON.

        Raises:
            KeyError, TypeError, ValueError: it is not as `EditEarnings.as_dict` writes it.
        """
        advantages = {
            _text(method): _changes(found, but="verdict")
            for method, found in _mapping(given["advantages"]).items()
        }
        return cls(
            edit=_text(given["edit"]),
            about=_text(given["about"]),
            harmful=bool(given["harmful"]),
            applied=int(given["applied"]),
            left_out={_text(why): int(n) for why, n in _mapping(given["left_out"]).items()},
            scores=_changes(given["scores"]),
            advantages=advantages,
        )

    def at_the_edit(self, method: str) -> EarnedChange | None:
        """The change that decides the verdict."""
        return self.advantages[method].get(AT_THE_EDIT)

    def verdict(self, method: str) -> AttackVerdict:
        """Whether the edit is paid under a method."""
        return attack_verdict(self.at_the_edit(method), harmful=self.harmful)

    def as_json(self) -> dict[str, Any]:
        """The row as plain values, with the verdicts."""
        plain = asdict(self)
        for method, found in plain["advantages"].items():
            found["verdict"] = self.verdict(method)
        return plain


@dataclass(frozen=True)
class SavedAttack:
    """The report of `stepcredit attack --json`.

    Args:
        path: the file.
        signal: name of the signal.
        methods: names of the methods.
        responses: keys of the attacked responses.
        edits: what each edit earned.
    """

    path: str
    signal: str
    methods: tuple[str, ...]
    responses: tuple[str, ...]
    edits: tuple[EditRow, ...]

    @classmethod
    def read(cls, path: str | Path) -> SavedAttack:
        """The report in a file.

        Raises:
            FileError: the file can't be read, or is not what `stepcredit attack --json` writes.
        """
        name = str(path)
        with file_errors(name):
            text = Path(path).read_bytes()
        try:
            given = _mapping(orjson.loads(text))
        except (ValueError, TypeError):
            raise FileError("is not JSON of `stepcredit attack --json`", field=name) from None
        if given.get("schema") != ATTACK_SCHEMA:
            reason = f"is not JSON of `stepcredit attack --json`: its schema is not {ATTACK_SCHEMA}"
            raise FileError(reason, field=name)
        if not given.get("responses"):
            reason = "does not say which responses were edited: run `stepcredit attack` again"
            raise FileError(reason, field=name)
        try:
            return cls._of(name, given)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"is not as `stepcredit attack --json` writes it ({type(error).__name__}: "
            raise FileError(f"{reason}{error})", field=name) from None

    @classmethod
    def _of(cls, path: str, given: Mapping[str, Any]) -> SavedAttack:
        methods = tuple(map(_text, given["methods"]))
        edits = tuple(EditRow.of(_mapping(edit)) for edit in given["edits"])
        for row in edits:
            if set(row.advantages) != set(methods):
                raise ValueError(f"edit {row.edit!r} has other methods")
        responses = tuple(map(_text, given["responses"]))
        return cls(path, _text(given["signal"]), methods, responses, edits)

    def check_rows(self, batch: LoggedBatch) -> None:
        """Refuse a batch that lacks some of the attacked responses.

        Raises:
            FileError: one line; the attack is of another file.
        """
        known = {response_key(str(row.group), row.fields) for row in batch.rows}
        missing = sum(key not in known for key in self.responses)
        if missing:
            count = counted(len(self.responses), "attacked response")
            reason = f"is an attack on another file: {missing:,} of its {count} "
            verb = "is" if missing == 1 else "are"
            raise FileError(f"{reason}{verb} not in {batch.source}", field=self.path)


def with_attack(report: AuditReport, attack: SavedAttack) -> AuditReport:
    """The report with the attack as one more check.

    Args:
        report: of an audit.
        attack: an attack on responses of the same file.

    Raises:
        FileError: see `SavedAttack.check_rows`.
    """
    attack.check_rows(report.given.batch)
    return replace(report, results={**report.results, ATTACK_CHECK: attack_result(attack)})


def attack_result(attack: SavedAttack) -> CheckResult:
    """What the edits earned, as figures, at most one finding, and the rows of a table.

    Args:
        attack: the attack.
    """
    rows = [row.as_json() for row in attack.edits]
    return CheckResult(
        figures=tuple(_figures(attack)),
        findings=_findings(attack),
        series={"signal": attack.signal, "methods": list(attack.methods), "earnings": rows},
    )


def _figures(attack: SavedAttack) -> list[AuditFigure]:
    """The change of the mean score by each edit, and that of the advantage at it."""
    found = []
    for row in attack.edits:
        about = f"change of a response's mean score by the edit {row.edit}"
        found.append(_figure(about, row.scores.get(MEAN_SCORE), stream=attack.signal))
        about = AT_ONE_EDIT.format(row.edit)
        found += [_figure(about, row.at_the_edit(name), method=name) for name in attack.methods]
    return [figure for figure in found if figure is not None]


def _figure(
    about: str, change: EarnedChange | None, *, method: str = "", stream: str = ""
) -> AuditFigure | None:
    if change is None:
        return None
    count, low, high = change.responses, change.low, change.high
    return AuditFigure(about, change.mean, count, "responses", low, high, method, stream, "higher")


def _findings(attack: SavedAttack) -> tuple[Finding, ...]:
    """One warning for all edits that are surely paid, the best paid of each method named."""
    paid = paid_edits(attack)
    if not any(paid.values()):
        return ()
    named = "; ".join(f"under {name} {_listed(rows, name)}" for name, rows in paid.items() if rows)
    sentence = f"The signal {attack.signal} can be gamed: edits that make no response better are "
    sentence += f"paid, {named}."
    evidence = [
        _figure(AT_ONE_EDIT.format(row.edit), row.at_the_edit(name), method=name)
        for name, rows in paid.items()
        for row in rows
    ]
    rows = attack.edits
    safe = [m for m in attack.methods if all(row.verdict(m) != "exploitable" for row in rows)]
    edits = {row.edit for rows in paid.values() for row in rows}
    return (
        Finding(
            ATTACK_CHECK,
            "warn",
            sentence,
            tuple(figure for figure in evidence if figure is not None),
            _advice(safe),
            share=len(edits) / len(attack.edits),
            topic=f"edits that {attack.signal} pays",
        ),
    )


def paid_edits(attack: SavedAttack) -> dict[str, list[EditRow]]:
    """By method, the edits that are surely and noticeably paid, the best paid first.

    Many edits are looked at under several methods, so the intervals are widened to hold for all of
    them together (Bonferroni). A mean below `SMALLEST_PAID`, or of fewer than `FEWEST_GROUPS`
    groups, does not count.

    Args:
        attack: the attack.
    """
    cells = [row.at_the_edit(name) for row in attack.edits for name in attack.methods]
    tested = sum(change is not None and change.low is not None for change in cells)
    found = dict[str, list[EditRow]]()
    for name in attack.methods:
        changes = [(row, row.at_the_edit(name)) for row in attack.edits]
        sure = [(c.mean, row) for row, c in changes if c is not None and _is_paid(c, tested)]
        found[name] = [row for _, row in sorted(sure, key=lambda each: -each[0])]
    return found


def _is_paid(change: EarnedChange, tested: int) -> bool:
    if change.low is None or change.groups < FEWEST_GROUPS or change.mean < SMALLEST_PAID:
        return False
    wider = t_quantile(1 - 0.05 / tested, change.groups - 1) / t_quantile(0.95, change.groups - 1)
    return change.mean - wider * (change.mean - change.low) > 0


def _listed(rows: Sequence[EditRow], method: str) -> str:
    """The two best paid edits, and how many more there are."""
    words = []
    for row in rows[:2]:
        change = row.at_the_edit(method)
        assert change is not None
        words.append(f"{row.edit} by {change.mean:+.2f}")
    more = len(rows) - len(words)
    return f"{', '.join(words)} and {more} more" if more else " and ".join(words)


def _advice(safe: Sequence[str]) -> str:
    if safe:
        return (
            f"Take a method under which no edit is paid (`--method {safe[0]}`), or lower the "
            "scores that the signal gives to such steps; `stepcredit attack` shows each edit."
        )
    return (
        "Lower the scores that the signal gives to such steps, or give it less weight, for example "
        "`--set weights='[0.3, 1, 1]'`; `stepcredit attack` shows each edit."
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError("expected an object")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {type(value).__name__}")
    return value


def _changes(given: Any, but: str = "") -> dict[str, EarnedChange | None]:
    return {
        name: None if value is None else _change(_mapping(value))
        for name, value in _mapping(given).items()
        if name != but
    }


def _change(given: Mapping[str, Any]) -> EarnedChange:
    low, high = (None if given[end] is None else float(given[end]) for end in ("low", "high"))
    found = EarnedChange(
        float(given["mean"]), low, high, int(given["responses"]), int(given["groups"])
    )
    if not all(isfinite(x) for x in (found.mean, low or 0.0, high or 0.0)):
        raise ValueError("a number is not finite")
    return found
