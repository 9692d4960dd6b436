"""How often the checks accuse generated logs that hold no fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from stepcredit.audit.check_registry import AuditInput, audit_checks
from stepcredit.audit.conformance import CONFORMANCE, conformance_of
from stepcredit.audit.finding import Finding
from stepcredit.audit.generated_logs import CREDITING, LogRows, fitting_methods, generated_log
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.credit.method_registry import METHODS
from stepcredit.evals.intervals import rate_upper_bound


@dataclass(frozen=True)
class FalseAlarms:
    """Clean logs with a finding of severity "warn" or "fault".

    Args:
        files: clean logs.
        alarmed: how many of them got such a finding from any check.
        by_check: the same for every check that ran, by its name.
    """

    files: int
    alarmed: int
    by_check: Mapping[str, int]

    def text(self) -> str:
        """How many logs each check accused, with the largest rate that this allows."""
        if not self.files:
            return "No clean log was looked at."
        head = f"False alarms, on {self.files:,} clean logs"
        lines = [(head, "logs", "rate at most (95 %)")]
        counts = {**self.by_check, "any check": self.alarmed}
        for name, count in counts.items():
            lines.append((name, str(count), f"{rate_upper_bound(count, self.files):.2%}"))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def count_false_alarms(seeds: range, tick: Callable[[], None] = lambda: None) -> FalseAlarms:
    """Audit generated clean logs with every check and with `conformance`.

    Args:
        seeds: of the logs.
        tick: called after each log.

    Example:
        >>> found = count_false_alarms(range(1))
        >>> found.files, found.alarmed, len(found.by_check)
        (1, 0, 18)
    """
    counts = dict.fromkeys((*audit_checks(), CONFORMANCE), 0)
    alarmed = 0
    for seed in seeds:
        found = {each.check for each in false_alarms(generated_log(np.random.default_rng(seed)))}
        alarmed += bool(found)
        for name in found:
            counts[name] += 1
        tick()
    return FalseAlarms(len(seeds), alarmed, counts)


def false_alarms(rows: LogRows) -> list[Finding]:
    """The warnings and faults of all checks and of `conformance` on a generated clean log.

    Args:
        rows: of `generated_log`; the methods that fit them are compared.
    """
    batch = LoggedBatch.of(rows, "generated")
    given = AuditInput.of(batch, {name: METHODS.build(name, {}) for name in fitting_methods(rows)})
    results = [check(given) for check in audit_checks().values()]
    results.append(conformance_of(batch, {name: METHODS.build(name, {}) for name in CREDITING}))
    found = [finding for result in results for finding in result.findings]
    return [finding for finding in found if finding.severity != "note"]
