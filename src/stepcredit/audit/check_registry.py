"""The checks of the audit, by name, and what each of them gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module

from stepcredit.audit.finding import CheckResult
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.stored_advantages import StoredAdvantages
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.metrics.step_kinds import StepKinds
from stepcredit.data.advantages import Advantages
from stepcredit.errors import StepCreditError


@dataclass(frozen=True, eq=False)
class AuditInput:
    """What a check looks at.

    Args:
        batch: the logged responses.
        methods: the methods that are compared, by name; only those that can run on the batch.
        advantages: of each of them, computed once for all checks.
        left_out: by name, the methods that can't, with the reason.
        right_above: a response is right where its outcome is above this.
    """

    batch: LoggedBatch
    methods: Mapping[str, Estimator]
    advantages: Mapping[str, Advantages]
    left_out: Mapping[str, str]
    right_above: float = 0.0

    @classmethod
    def of(
        cls, batch: LoggedBatch, methods: Mapping[str, Estimator], right_above: float = 0.0
    ) -> AuditInput:
        """The input with those methods that run on the batch."""
        advantages, left_out = dict[str, Advantages](), dict[str, str]()
        for name, method in methods.items():
            try:
                advantages[name] = method(batch.rollouts)
            except StepCreditError as error:
                left_out[name] = str(error)
        found = {name: methods[name] for name in advantages}
        return cls(batch, found, advantages, left_out, right_above)

    @cached_property
    def stored(self) -> StoredAdvantages | None:
        """The advantages that the log holds; None: it holds none."""
        return StoredAdvantages.of(self.batch)

    @cached_property
    def step_kinds(self) -> StepKinds | None:
        """The steps by kind, found once for all checks; None where their ends are unknown."""
        batch = self.batch
        return StepKinds.of(batch.rollouts, batch.steps, batch.step_labels)


Check = Callable[[AuditInput], CheckResult]
_CHECKS: dict[str, Check] = {}


def register_check(name: str) -> Callable[[Check], Check]:
    """Make a function a check of the audit, under a name; checks run in the order of their names'
    registration.

    Raises:
        StepCreditError: the name is taken.
    """

    def added(check: Check) -> Check:
        if name in _CHECKS:
            raise StepCreditError(f"{name!r} is taken", field="name")
        _CHECKS[name] = check
        return check

    return added


def audit_checks() -> dict[str, Check]:
    """All checks by name; those of the package are imported first."""
    import_module("stepcredit.audit.checks")
    return dict(_CHECKS)
