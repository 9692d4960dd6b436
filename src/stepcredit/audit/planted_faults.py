"""The audit's self-test: faults planted in generated logs, what finds them, and false alarms."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np

from stepcredit.audit.check_registry import AuditInput, audit_checks
from stepcredit.audit.conformance import CONFORMANCE, conformance_of
from stepcredit.audit.false_alarms import FalseAlarms, count_false_alarms
from stepcredit.audit.finding import CheckResult, Finding
from stepcredit.audit.generated_logs import (
    CREDITING,
    credited,
    generated_log,
    with_advantages,
)
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.planted_advantages import PLANTED_ADVANTAGES, RESET, PlantAdvantages
from stepcredit.audit.planted_lints import PLANTED_LINTS, PlantedLint
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import METHODS

STEP_METHODS = ("pass", "pure", "grpo-process")
"""Methods on whose advantages conformance faults are planted: theirs differ within a response."""
SUMMING = ("pure", "grpo-process")
"""Those of them whose advantages are sums over what follows."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SelfTestRow:
    """What was found of one planted fault.

    Args:
        fault: what was planted.
        check: the check that must find it.
        files: in how many generated logs.
        found: in how many of them it was found, by its own name.
        planted: the mean of its planted sizes; None: it has no size.
        measured: the mean of the sizes that the findings give.
    """

    fault: str
    check: str
    files: int
    found: int
    planted: float | None = None
    measured: float | None = None


@dataclass(frozen=True)
class SelfTest:
    """The matrix of planted faults, and the false alarms on clean logs.

    Args:
        rows: one per fault.
        clean: what the checks said of clean logs.
    """

    rows: tuple[SelfTestRow, ...]
    clean: FalseAlarms

    @property
    def finds_all(self) -> bool:
        """Whether every planted fault was found in every file, and no clean file was accused."""
        return not self.clean.alarmed and all(row.found == row.files for row in self.rows)

    def text(self) -> str:
        """The matrix as lines of text, and the rate of false alarms."""
        head = ("planted fault", "check", "found", "planted", "measured")
        cells = [head, *((_cells(row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
        return "\n".join([*lines, "", self.clean.text()])


def _cells(row: SelfTestRow) -> tuple[str, ...]:
    sizes = ("" if size is None else f"{size:.3g}" for size in (row.planted, row.measured))
    return (row.fault, row.check, f"{row.found} of {row.files}", *sizes)


def selftest_matrix(
    files: int = 50, planted_files: int = 5, seed: int = 0, progress: Progress | None = None
) -> SelfTest:
    """Plant each fault of the lints and of `conformance` in generated logs, and look for it.

    Args:
        files: clean logs on which false alarms are counted: findings of severity "warn" or "fault"
            of any check and of `conformance`.
        planted_files: logs per fault.
        seed: of the first log; the others have the numbers behind it.
        progress: called with how many logs are done, and how many there are.

    Returns:
        The matrix; 0 alarms of 0 files where `files` is 0.
    """
    total = (len(PLANTED_LINTS) + len(PLANTED_ADVANTAGES)) * planted_files + files
    counter = iter(range(1, total + 1))

    def tick() -> None:
        if progress is not None:
            progress(next(counter), total)

    seeds = range(seed, seed + planted_files)
    rows = [_of_lint(planted, seeds, tick) for planted in PLANTED_LINTS]
    rows += [_of_advantages(name, plant, seeds, tick) for name, plant in PLANTED_ADVANTAGES.items()]
    return SelfTest(tuple(rows), count_false_alarms(range(seed, seed + files), tick))


LINT_NAMES = tuple(dict.fromkeys(planted.check for planted in PLANTED_LINTS))
"""The checks whose faults are planted."""


def _methods(names: Iterable[str]) -> dict[str, Estimator]:
    return {name: METHODS.build(name, {}) for name in names}


def _of_lint(planted: PlantedLint, seeds: range, tick: Callable[[], None]) -> SelfTestRow:
    sizes, measured, check = list[float](), list[float](), audit_checks()[planted.check]
    found = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        rows = deepcopy(generated_log(rng))
        size = planted.plant(rng, rows)
        result = check(AuditInput.of(LoggedBatch.of(rows), _methods(CREDITING)))
        named = [each for each in result.findings if planted.words in each.sentence]
        found += bool(named)
        if size is not None:
            sizes.append(size)
            measured += [_measured(each) for each in named[:1]]
        tick()
    return SelfTestRow(
        planted.name, planted.check, len(seeds), found, _mean(sizes), _mean(measured)
    )


def _of_advantages(
    name: str, plant: PlantAdvantages, seeds: range, tick: Callable[[], None]
) -> SelfTestRow:
    """A conformance fault on each method's advantages in turn; its size counts responses."""
    sizes, measured, found = list[float](), list[float](), 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        rows = generated_log(rng)
        while name == RESET and "loss_mask" not in rows[0]:
            rows = generated_log(rng)
        methods = SUMMING if name == RESET else STEP_METHODS
        method = methods[seed % len(methods)]
        values = credited(rows, method)
        stored = plant(rng, rows, values)
        sizes.append(_changed(values, stored))
        batch = LoggedBatch.of(with_advantages(rows, stored))
        result = conformance_of(batch, _methods(STEP_METHODS))
        if name in _named(result) and f"{method!r}" in result.findings[0].sentence:
            found += 1
            measured.append(_measured(result.findings[0]))
        tick()
    return SelfTestRow(name, CONFORMANCE, len(seeds), found, _mean(sizes), _mean(measured))


def _measured(finding: Finding) -> float:
    return finding.share if finding.share is not None else finding.evidence[0].value or 0.0


def _named(result: CheckResult) -> str:
    """The name of the fault that the first finding gives first."""
    evidence = result.findings[0].evidence if result.findings else ()
    return evidence[1].name if len(evidence) > 1 else ""


def _changed(values: list[list[float]], stored: list[list[float]]) -> float:
    """The share of responses of which an advantage changed by more than rounding."""
    changed = [
        bool((np.abs(np.array(a) - np.array(b)) > 0.01 * np.abs(a) + 1e-3).any())
        for a, b in zip(values, stored, strict=True)
    ]
    return sum(changed) / len(changed)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
