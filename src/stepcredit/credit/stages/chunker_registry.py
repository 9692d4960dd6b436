"""Chunkers by name: registered here, or by installed packages through an entry-point group."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, make_dataclass
from typing import Any, ClassVar, Literal, TypeVar

from stepcredit.credit.stages.chunks import Chunker, Chunks, LeadStream
from stepcredit.errors import MethodError
from stepcredit.settings.fields import Check, check_fields, declare
from stepcredit.settings.registry import Registry

Needs = Literal["text", "step_ends", "student_logprobs"]
Rule = TypeVar("Rule", bound=Callable[..., Chunks])
_HERE = "stepcredit.credit.stages.chunkers"
OURS = (
    "auto",
    "steps",
    "runs",
    "group_runs",
    "tokens",
    "sign_runs",
    "change_points",
    "windows",
    "sentences",
    "delimiters",
    "cut_points",
)


@dataclass(frozen=True)
class NamedChunker:
    """A registered chunker with its options, which are the fields of a subclass."""

    name: ClassVar[str] = ""
    rule: ClassVar[Callable[..., Chunks]]
    needs: ClassVar[Needs | None] = None

    def __post_init__(self) -> None:
        check_fields(self, MethodError)

    def __call__(self, lead: LeadStream) -> Chunks:
        """The chunks of the leading stream."""
        options = {option.name: getattr(self, option.name) for option in fields(self)}
        return type(self).rule(lead, **options)


def _chunker_class(rule: Callable[..., Chunks], **checks: Check) -> type[NamedChunker]:
    """A dataclass of a chunker's options: the parameters after the first."""
    if not callable(rule):
        raise MethodError(f"a chunker is a function, got {rule!r}")
    _, *options = inspect.signature(rule).parameters.values()
    declared = [
        (o.name, Any, declare(o.default, checks.get(o.name, lambda _: None), f"option {o.name}"))
        for o in options
    ]
    own = {"rule": staticmethod(rule), "needs": needs_of(rule), "__module__": rule.__module__}
    cls = make_dataclass(
        getattr(rule, "__name__", "chunker"),
        declared,
        bases=(NamedChunker,),
        namespace=own,
        frozen=True,
    )
    cls.__doc__ = rule.__doc__
    return cls


CHUNKERS = Registry[NamedChunker](
    "chunker",
    "stepcredit.chunkers",
    MethodError,
    own=dict.fromkeys(OURS, _HERE),
    adapt=_chunker_class,
)


def register_chunker(
    name: str, *, needs: Needs | None = None, **options: Check
) -> Callable[[Rule], Rule]:
    """Give a chunker its name, for `--set chunks=NAME` and the settings of every engine.

    A chunker is a function of a `LeadStream` that returns `Chunks`; its other parameters are its
    options, each with a default.

    Args:
        name: its name.
        needs: "text": it reads the tokens' texts; "step_ends": it reads `step_ends`, so engines
            give them for a token signal too; "student_logprobs": it reads the policy's log-probs.
        options: a check for each option that has one, such as `size=is_whole(at_least=1)`.

    Raises:
        MethodError: another chunker has that name.

    Example:
        >>> import stepcredit as sc
        >>> @register_chunker("one-per-response")
        ... def one_per_response(lead):
        ...     return Chunks(lead.slots, lead.slots.end_slots())
        >>> sc.PASS(chunks="one-per-response").chunks
        'one-per-response'
    """

    def add(rule: Rule) -> Rule:
        rule.needs = needs  # type: ignore[attr-defined]
        CHUNKERS.register(name)(_chunker_class(rule, **options))
        return rule

    return add


def chunker(rule: str | Mapping[str, Mapping[str, object]] | Chunker) -> Chunker:
    """A chunker by its name, by {name: options}, or a callable itself.

    Raises:
        MethodError: an unknown name or option.

    Example:
        >>> chunker({"windows": {"size": 8}}).size
        8
    """
    if callable(rule):
        return rule
    name: object = rule
    options: object = {}
    if isinstance(rule, Mapping) and len(rule) == 1:
        name, options = next(iter(rule.items()))
    if not isinstance(name, str) or name not in CHUNKERS.names():
        names = ", ".join(CHUNKERS.names())
        raise MethodError(f"unknown chunker {rule!r}: expected {names}", field="chunks")
    if not isinstance(options, Mapping):
        raise MethodError(f"options of {name!r} must be a mapping, got {options!r}", field="chunks")
    known = {option.name for option in fields(CHUNKERS.named(name))}
    for option in options:
        if option not in known:
            raise MethodError(f"{name!r} has no option {option!r}", field="chunks")
    try:
        return CHUNKERS.build(name, options)
    except MethodError as error:
        reason = f"{error.field} of {name!r}: {error.reason}"
        raise MethodError(reason, field="chunks") from error


def is_built_in(rule: str | Mapping[str, Mapping[str, object]] | Chunker) -> bool:
    """Whether a chunker is one of ours: they read streams, step ends and texts, and nothing else.

    Example:
        >>> is_built_in("auto"), is_built_in(lambda lead: lead)
        (True, False)
    """
    return type(chunker(rule)).__module__ == _HERE


def needs_of(rule: Chunker | str | Mapping[str, Mapping[str, object]] | None) -> Needs | None:
    """What a chunker needs beside the leading stream.

    Args:
        rule: as for `chunker`, or None; your own callable may have the attribute `needs`.

    Returns:
        "text" for the tokens' texts, "step_ends" for step ends where a token signal leads,
        "student_logprobs" for the policy's log-probs; None for none of these.

    Example:
        >>> needs_of("sentences"), needs_of("steps"), needs_of("auto")
        ('text', 'step_ends', None)
    """
    if rule is None:
        return None
    known = chunker(rule)
    found: Needs | None = getattr(getattr(known, "func", known), "needs", None)
    return found
