"""How `stepcredit audit` reads and audits responses: what the user gave, and what runs recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stepcredit.cli.convert import say_notes
from stepcredit.errors import SettingError

if TYPE_CHECKING:
    from stepcredit.audit.attack.attack_check import SavedAttack
    from stepcredit.audit.audit_report import AuditReport, CheckProgress
    from stepcredit.audit.check_registry import Check
    from stepcredit.audit.logged_batch import LoggedBatch
    from stepcredit.audit.run_methods import RunMethods
    from stepcredit.credit.estimator import Estimator


@dataclass(frozen=True)
class AuditPlan:
    """How responses are read and audited.

    Args:
        format_name: `--from`.
        methods: the methods by name.
        checks: the checks by name; None: all.
        attack: `--attack`, which is of one file.
        named: the names of `--method`.
        has_settings: whether there is a `--set`, which counts more than what a run recorded.
        right_above: `--right-above`, which does so too.
    """

    format_name: str | None
    methods: dict[str, Estimator]
    checks: dict[str, Check] | None
    attack: SavedAttack | None
    named: tuple[str, ...]
    has_settings: bool
    right_above: float | None

    def own_credit(self, folder: str | None) -> RunMethods:
        """What a run recorded in its folder, where the user did not give it.

        Args:
            folder: of the run; None: the responses are of no run.
        """
        from stepcredit.audit.run_methods import RunMethods, run_methods

        found = RunMethods() if folder is None else run_methods(folder)
        if self.has_settings:
            found = RunMethods(right_above=found.right_above)
        elif self.named:
            found = found.only(self.named)
        return found if self.right_above is None else replace(found, right_above=self.right_above)

    def audit(self, batch: LoggedBatch, progress: CheckProgress | None) -> AuditReport:
        """The report of a file, or of a step that is named as `RUN@STEP`."""
        from stepcredit.audit.audit_report import audit

        run, at, step = batch.source.rpartition("@")
        own = self.own_credit(run if at and Path(run).is_dir() else None)
        say_notes(own.notes)
        methods, above = own.among(self.methods, step.rpartition(":")[0]), own.right_above
        return audit(batch, methods, checks=self.checks, progress=progress, right_above=above)

    def check_no_attack(self, what: str) -> None:
        """Refuse an attack beside what it can't be a part of."""
        if self.attack is not None:
            raise SettingError(f"--attack: is of the responses of one file, not of {what}")
