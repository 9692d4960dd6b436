"""What methods made of other methods share: how the others are named, and what they read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.method_registry import METHODS
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.groups import Group, Values
from stepcredit.data.rollouts import Rollouts
from stepcredit.data.slots import Slots, every_token
from stepcredit.errors import MethodError
from stepcredit.settings.fields import declare

Part = str | Mapping[str, Mapping[str, object]] | Estimator
"""A method inside another: its name, {name: fields}, or the method."""


def part(field: str, default: str, about: str, check: Callable[[Estimator], str | None]) -> Any:
    """A field that names another method.

    Args:
        field: its name, for errors.
        default: the method that it names.
        about: its meaning, for listings.
        check: returns why a method can't stand there; None for one that can.
    """

    def accept(value: Any) -> str | None:
        method = built_part(value, field)
        reason = _by_itself(method) or check(method)
        if reason:
            raise MethodError(f"{method.name or type(method).__name__!r} {reason}", field=field)
        return None

    return declare(default, accept, f"{about}: a method's name, or {{name: fields}}")


def any_method(method: Estimator) -> None:
    """The check of a part that may be any method."""
    return


def of_outcomes_alone(method: Estimator) -> str | None:
    """The check of a part that must give all tokens of a response the same advantage.

    Example:
        >>> from stepcredit.credit.methods.grpo import GRPO
        >>> from stepcredit.credit.methods.pure import PURE
        >>> of_outcomes_alone(GRPO()) is None, of_outcomes_alone(PURE())
        (True, 'reads a process signal or log-probs: expected a method of outcomes, such as grpo')
    """
    if method.reads.process is None and not method.reads.logprobs:
        return None
    return "reads a process signal or log-probs: expected a method of outcomes, such as grpo"


def _by_itself(method: Estimator) -> str | None:
    """Why a method can only run by itself."""
    if method.batch_step is not None or method.batch_scale is not None:
        return "normalizes over the whole batch, which a method inside another can't"
    if type(method).__call__ is not Estimator.__call__:
        return "has a __call__ of its own, which a method inside another can't run"
    return None


def built_part(value: Part, field: str) -> Estimator:
    """The method that a field of another method holds or names.

    Args:
        value: the field's value.
        field: its name, for errors.

    Raises:
        MethodError: no such method, or a bad field of it; it begins with the field.

    Example:
        >>> built_part({"pass": {"k": 1.0}}, "first").k
        1.0
    """
    return value if isinstance(value, Estimator) else METHODS.build_inner(value, field)


@dataclass(frozen=True)
class Composition(Estimator):
    """Base class of the methods made of other methods, which fields declared with `part` name."""

    part_fields: ClassVar[tuple[str, ...]] = ("first", "second")
    """The fields that name a method."""

    @cached_property
    def parts(self) -> Mapping[str, Estimator]:
        """The methods inside, by field."""
        return {name: built_part(vars(self)[name], name) for name in self.part_fields}

    @property
    def reads(self) -> Reads:
        """The union of what the methods inside read."""
        return union_of_reads(each.reads for each in self.parts.values())

    @property
    def standardizes(self) -> bool:
        """Whether any method inside divides by a standard deviation."""
        return any(each.standardizes for each in self.parts.values())

    def with_weights(self, weights: Mapping[str, float]) -> Estimator:
        """The same method; every method inside that weighs streams by name gets these weights.

        Raises:
            MethodError: no method inside weighs streams, or one refuses these weights; or the
                outcome has no weight, and a method inside reads it without weights.
        """
        weighs = {name: each for name, each in self.parts.items() if each.reads.weights is not None}
        others = [each for name, each in self.parts.items() if name not in weighs]
        if not weighs:
            return super().with_weights(weights)
        if "outcome" not in weights and any(each.reads.outcome for each in others):
            raise MethodError("a method inside reads the outcome without a weight", field="weights")
        changed: dict[str, Any] = {n: each.with_weights(weights) for n, each in weighs.items()}
        return replace(self, **changed)

    def check(self, rollouts: Rollouts) -> None:
        """Refuse rollouts that lack what a method inside needs."""
        for each in self.parts.values():
            each.check(rollouts)

    def check_streams(self, signals: Collection[str]) -> None:
        """Refuse a batch that lacks a stream that a method inside needs; names the field."""
        for name, each in self.parts.items():
            try:
                each.check_streams(signals)
            except MethodError as error:
                raise error.at(under=name) from error.__cause__

    def notes(self, rollouts: Rollouts) -> list[str]:
        """The warnings of the methods inside, each with its field."""
        return [
            f"{name}: {note}" for name, each in self.parts.items() for note in each.notes(rollouts)
        ]

    def part_credits(self, rollouts: Rollouts) -> dict[str, Credit]:
        """The credit of each method inside, clipped, and 0 where its terms cancel."""
        return {name: finished_credit(each, rollouts) for name, each in self.parts.items()}

    def joined(self, rollouts: Rollouts) -> JoinedCredits:
        """The credits of the methods inside, read at slots that all of them share."""
        credits = self.part_credits(rollouts)
        slots = common_slots([each.slots for each in credits.values()], rollouts)
        tables = [slots.read(each.advantage, each.slots) for each in credits.values()]
        return JoinedCredits(slots, tables, lambda: stages_of_parts(credits, slots))


class JoinedCredits(NamedTuple):
    """The credits of several methods at common slots.

    Args:
        slots: the slots.
        advantages: one table per method, (rollout, slot).
        stages: makes the stages of all methods.
    """

    slots: Slots
    advantages: list[Values]
    stages: Callable[[], dict[str, Values]]


def finished_credit(method: Estimator, rollouts: Rollouts) -> Credit:
    """A method's credit with the steps that follow it: rounding noise set to 0, and the clip.

    Args:
        method: one that runs on each group alone.
        rollouts: whole groups.
    """
    credit = Credit.checked(method.credit(rollouts), rollouts).in_order()
    advantage = method.clipped(credit.without_rounding_noise(Group.of(rollouts)))
    return replace(credit, advantage=advantage, scale=None, entering=None)


def common_slots(slots: Sequence[Slots], rollouts: Rollouts) -> Slots:
    """Slots at which tables over all of these can be read without loss.

    Args:
        slots: at least one.
        rollouts: the rollouts that they cut.

    Returns:
        The only ones that are finer than the whole response, or else every token.

    Example:
        >>> from stepcredit.data.slots import whole_responses
        >>> r = Rollouts([0], [4])
        >>> tokens = every_token(r.lengths)
        >>> common_slots([whole_responses(r.lengths), tokens], r) is tokens
        True
    """
    finer = [each for each in slots if each.width > 1]
    if not finer:
        return slots[0]
    if all(_equal(each, finer[0]) for each in finer[1:]):
        return finer[0]
    return every_token(rollouts.lengths)


def _equal(one: Slots, other: Slots) -> bool:
    if one is other:
        return True
    if one.ends is None or other.ends is None or one.width != other.width:
        return one.ends is other.ends
    same = (one.ends == other.ends) | ~one.mask
    return bool((same.all() & (one.counts == other.counts).all()).item())


def stages_of_parts(credits: Mapping[str, Credit], slots: Slots) -> dict[str, Values]:
    """The stages of methods inside, and their advantages as A(field).

    Args:
        credits: by field.
        slots: where the tables are read.
    """
    found: dict[str, Values] = {}
    for name, credit in credits.items():
        shape = credit.advantage.shape
        for stage, table in credit.stages().items():
            found[f"{name}: {stage}"] = slots.read(table.expand(shape), credit.slots)
        found[f"A({name})"] = slots.read(credit.advantage, credit.slots)
    return found


def union_of_reads(reads: Iterable[Reads]) -> Reads:
    """What several methods read together.

    Process streams are "weighted" if all that read some weigh them by name; a stream has then its
    largest weight. Where some weigh them and others do not, it is "every".

    Example:
        >>> both = union_of_reads([Reads("one"), Reads(None, outcome="required")])
        >>> both.process, both.outcome
        ('one', 'required')
    """
    every = list(reads)
    kinds = {each.process for each in every} - {None}
    weights = _largest_weights(every) if kinds <= {"weighted"} else None
    return Reads(
        process=kinds.pop() if len(kinds) == 1 else "every" if kinds else None,
        weights=weights,
        logprobs=tuple(dict.fromkeys(name for each in every for name in each.logprobs)),
        outcome=_strictest(each.outcome for each in every),
        format=any(each.format for each in every),
        gate=any(each.gate for each in every),
        ready_made=any(each.ready_made for each in every),
        text=any(each.text for each in every),
        steps=any(each.steps for each in every),
        states=any(each.states for each in every),
    )


def _largest_weights(reads: Sequence[Reads]) -> dict[str, float] | None:
    found: dict[str, float] = {}
    for each in reads:
        for stream, weight in (each.weights or {}).items():
            found[stream] = max(found.get(stream, weight), weight, key=abs)
    return found or None


def _strictest(outcomes: Iterable[str | None]) -> Any:
    found = set(outcomes)
    return next((kind for kind in ("required", "optional") if kind in found), None)
