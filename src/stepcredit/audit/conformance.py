"""Whether the advantages that a trainer stored are those of a method, and if not, what happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.checks.stored_lints import is_computable, masked_credit, shown_alone
from stepcredit.audit.conformance_faults import FAULTS, ConformanceFault, has_turns
from stepcredit.audit.finding import AuditFigure, CheckResult, EvidencePlace, Finding, Unchecked
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.return_parts import ReturnParts
from stepcredit.audit.row_table import RowTable
from stepcredit.audit.stored_advantages import STORED, Flags, StoredAdvantages
from stepcredit.credit.estimator import Estimator

CONFORMANCE = "conformance"
EXPLAINS = 0.5
"""A fault that explains less than half of the responses that differ is not named."""
EXPLAINS_ALL = 0.99
"""From this share on a fault explains them all: a few may differ by rounding."""
FEW_RESPONSES = 4
"""With fewer responses that differ, an explanation is likely at best: few numbers fit by chance."""
PLACES = 5


@dataclass(frozen=True)
class FaultExplanation:
    """A fault that explains some of the responses that differ.

    Args:
        fault: the fault.
        what: what happened, in words.
        share: the part of the compared responses, in which it predicts every advantage.
        compared: how many of the responses that differ it was compared with (`evenly_chosen`).
    """

    fault: ConformanceFault
    what: str
    share: float
    compared: int


@dataclass(frozen=True)
class MethodMatch:
    """How the stored advantages compare with those of one method.

    Args:
        method: its name.
        agrees: for each compared response, whether all its advantages are the method's.
        explanations: of those that differ, the best first.
    """

    method: str
    agrees: Flags
    explanations: tuple[FaultExplanation, ...] = ()

    @property
    def explained(self) -> float:
        """The share of the responses that agree, or that the best explanation explains."""
        agree = float(self.agrees.mean())
        return agree + (1 - agree) * (self.explanations[0].share if self.explanations else 0.0)

    @property
    def order(self) -> tuple[float, float, float]:
        """What the better method has more of: explained responses, rigidity, agreement."""
        freedom = self.explanations[0].fault.freedom if self.explanations else 0
        return round(self.explained, 2), -float(freedom), float(self.agrees.mean())


def conformance_of(batch: LoggedBatch, methods: Mapping[str, Estimator]) -> CheckResult:
    """Whether the stored advantages are those of a method; if not, the fault, its place, how sure.

    The log's rows hold the field `advantages`, or TRL's `advantage`. A method that can't run on the
    batch is left out. Advantages agree within 0.5 % and 0.1 % of their root mean square.

    Args:
        batch: the log.
        methods: the method that the trainer ran; or several, and the one that fits best is taken.

    Returns:
        Per method, the share of responses that agree. No finding where all agree with one of the
        methods. Unchecked where no row holds advantages, or no method runs. Where nothing is there
        that a method could compute them from, they are shown in figures and not compared.

    Example:
        >>> import stepcredit as sc
        >>> rows = [{"group": 0, "outcome": r, "advantages": [a] * 3}
        ...         for r, a in ((1.0, -0.7071), (0.0, 0.7071))]
        >>> conformance_of(LoggedBatch.of(rows), {"grpo": sc.GRPO()}).findings[0].evidence[1].name
        'share of the differing responses that this explains: sign flipped'
    """
    given = AuditInput.of(batch, methods)
    found = check_conformance(given)
    if given.stored is None:
        return found
    left_out = [
        Unchecked(CONFORMANCE, name, f"The method {name!r} can't run on the batch: {reason}.")
        for name, reason in given.left_out.items()
    ]
    return replace(found, unchecked=(*found.unchecked, *left_out))


def check_conformance(given: AuditInput) -> CheckResult:
    """`conformance_of` what a check gets; the methods that can't run are not named again."""
    batch, stored = given.batch, given.stored
    if stored is None:
        reason = "No row holds the trainer's advantages, so they can't be compared with a method's."
        return CheckResult(unchecked=(Unchecked(CONFORMANCE, STORED, reason),))
    if not (given.methods or given.left_out):
        missing_method = Unchecked(CONFORMANCE, "--method", "No method was named to compare with.")
        return CheckResult(unchecked=(missing_method,))
    if not is_computable(batch.rollouts):
        return shown_alone(CONFORMANCE, stored)
    masked = masked_credit(batch, stored)
    matches = [_match(name, given, stored) for name in given.methods]
    found = [*masked.findings]
    if matches and not any(bool(match.agrees.all()) for match in matches):
        group = batch.rollouts.group_index.numpy()[stored.rows]
        found.insert(0, _fault_of(_explained(matches, given, stored, group), batch, stored))
    figures = tuple(
        AuditFigure(
            "share of responses whose stored advantages are the method's",
            float(match.agrees.mean()),
            len(match.agrees),
            "responses",
            method=match.method,
            worse="lower",
        )
        for match in matches
    )
    return CheckResult(figures, tuple(found), masked.unchecked, _series(stored, matches))


def _series(
    stored: StoredAdvantages, matches: list[MethodMatch]
) -> dict[str, dict[str, list[int]]]:
    differing = {each.method: stored.rows[~each.agrees].tolist() for each in matches}
    return {"rows that differ": differing}


def _match(name: str, given: AuditInput, stored: StoredAdvantages) -> MethodMatch:
    return MethodMatch(name, stored.agreeing(stored.expected(given.advantages[name])))


def _explained(
    matches: list[MethodMatch], given: AuditInput, stored: StoredAdvantages, group: np.ndarray
) -> list[MethodMatch]:
    """The methods with the faults that explain the log, the best first."""
    found = []
    for match in matches:
        expected = stored.expected(given.advantages[match.method])
        table = RowTable.of_differing(stored, expected, match.agrees, group)
        if has_turns(table.trained):
            rows, method = stored.rows[table.rows], given.methods[match.method]
            table = table.with_parts(ReturnParts.of(method, given.batch.rollouts, rows))
        found.append(MethodMatch(match.method, match.agrees, explanations_of(table)))
    return sorted(found, key=lambda match: match.order, reverse=True)


def explanations_of(table: RowTable) -> tuple[FaultExplanation, ...]:
    """The faults that explain some responses of a table, the best first.

    The better one explains more responses; among equals, the one with less freedom to fit.

    Args:
        table: responses that differ from a method.
    """
    found = []
    for fault in FAULTS:
        each = [
            FaultExplanation(fault, what, float(table.explained(predicted).mean()), len(table.rows))
            for what, predicted in fault.guesses(table)
        ]
        if each and (best := max(each, key=lambda one: one.share)).share > 0:
            found.append(best)
    return tuple(sorted(found, key=lambda one: (-round(one.share, 2), one.fault.freedom)))


def _fault_of(ranked: list[MethodMatch], batch: LoggedBatch, stored: StoredAdvantages) -> Finding:
    best = ranked[0]
    rows = stored.rows[~best.agrees]
    count = f"{len(rows)} of {len(stored.rows)} responses"
    first = f"The first is line {batch.line(int(rows[0]))} of {batch.source}."
    evidence = AuditFigure(
        "share of responses whose stored advantages differ",
        1 - float(best.agrees.mean()),
        len(best.agrees),
        "responses",
        method=best.method,
    )
    places = tuple(EvidencePlace(int(row)) for row in rows[:PLACES])
    if not best.explanations or best.explanations[0].share < EXPLAINS:
        among = f"{best.method!r}" if len(ranked) == 1 else "any of the methods compared"
        sentence = f"The stored advantages of {count} are not those of {among}, and no known fault"
        sentence += f" explains them. {first}"
        advice = "Name the method and its settings that the trainer ran: `--method` and `--set`."
        topic, share = "stored advantages that no known fault explains", evidence.value
        return Finding(CONFORMANCE, "fault", sentence, (evidence,), advice, places, share, topic)
    found = best.explanations[0]
    sentence = f"The stored advantages of {count} are not those of {best.method!r}: {found.what}."
    sentence += f" {first} {_sureness(ranked, len(rows))}"
    explained = AuditFigure(
        f"share of the differing responses that this explains: {found.fault.name}",
        found.share,
        found.compared,
        "responses",
        method=best.method,
    )
    figures, advice, share = (evidence, explained), found.fault.advice, evidence.value
    topic = f"stored advantages: {found.fault.name}"
    return Finding(CONFORMANCE, "fault", sentence, figures, advice, places, share, topic)


def _sureness(ranked: list[MethodMatch], differing: int) -> str:
    """How sure the explanation is, and what would explain the same."""
    best = ranked[0].explanations[0]
    others = [
        each
        for each in ranked[0].explanations[1:]
        if round(each.share - best.share, 2) == 0
        and best.fault.name not in each.fault.special_cases
    ]
    equal = [each.what for each in others if each.fault.freedom == best.fault.freedom]
    freer = [each.what for each in others if each.fault.freedom > best.fault.freedom]
    methods = [repr(each.method) for each in ranked[1:] if each.order[:2] == ranked[0].order[:2]]
    them = "them" if best.compared == differing else f"the {best.compared} of them that were tried"
    if best.share < EXPLAINS_ALL:
        sentence = f"This is likely: it explains {best.share:.0%} of {them}"
    elif equal or methods:
        sentence = f"This is not certain: it explains all of {them}, but so does another reading"
    elif freer or differing < FEW_RESPONSES:
        sentence = f"This is likely: it explains all of {them}"
    else:
        sentence = f"This is sure: it explains all of {them}, and nothing else does"
    alternatives = [f"that {what}" for what in [*equal, *freer]]
    alternatives += [f"a similar fault of {name}" for name in methods]
    return (
        f"{sentence}; the data also fit {', or '.join(alternatives)}."
        if alternatives
        else (f"{sentence}.")
    )
