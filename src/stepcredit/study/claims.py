"""The claims file, which is written before the runs: what is compared, and by which margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from stepcredit.errors import FileError, StepCreditError
from stepcredit.settings.yaml_files import yaml_mapping
from stepcredit.study.single_run import FIGURES
from stepcredit.study.study_presets import check_names

KINDS = ("greater", "less", "tied", "never", "most")
METRICS = (*FIGURES, "collapse", "cpu_ratio", "length_ratio")
MOST_PRIMARY = 12
CLAIMS = Path("evidence/claims.yaml")


@dataclass(frozen=True)
class StudyClaim:
    """One claim, with how it is decided.

    Args:
        id: its name.
        claim: the claim, in one sentence.
        source: who makes it, and where.
        published: the published figure.
        presets: the presets whose runs decide it.
        compare: the arm, and the arm that it is compared with; the arm alone for a rate or `most`.
        kind: "greater" or "less" than the margin; "tied": within it; "never": no run collapsed;
            "most": best or tied in more than half of the cells.
        margin: see `kind`, for `compare[0]` less `compare[1]`.
        metric: a figure of an evaluation; "collapse", the rate; "cpu_ratio" and "length_ratio", CPU
            seconds or mean length divided by those of the other arm, less 1.
        task: the only task that counts; None: all.
        signals: the signals that count; None: all that both arms were run on.
        split: the split of the evaluation; None: the one that was trained on.
        primary: whether it is one of the primary claims.
        amended: what was added or changed after runs had been seen, and why; "": nothing.
    """

    id: str
    claim: str
    source: str
    published: str
    presets: tuple[str, ...]
    compare: tuple[str, ...]
    kind: str
    margin: float
    metric: str = "pass_at_1"
    task: str | None = None
    signals: tuple[str, ...] | None = None
    split: str | None = None
    primary: bool = False
    amended: str = ""

    def __post_init__(self) -> None:
        for name, value, known in (("kind", self.kind, KINDS), ("metric", self.metric, METRICS)):
            if value not in known:
                reason = f"expected one of {', '.join(known)}, got {value!r}"
                raise StepCreditError(reason, field=name)
        if self.kind == "most" and (self.metric, self.split) != ("pass_at_1", None):
            raise StepCreditError("a claim of the kind 'most' is about pass@1", field="metric")
        alone = self.kind in ("never", "most") or self.metric == "collapse"
        if len(self.compare) != 2 - alone:
            reason = f"expected {2 - alone} labels, got {len(self.compare)}"
            raise StepCreditError(reason, field="compare")


@dataclass(frozen=True)
class ClaimsFile:
    """The claims, and the definitions of their words.

    Args:
        definitions: what each word means.
        claims: the claims.
        published_by_arm: the published figures of an arm, in percent, by its label.
    """

    definitions: Mapping[str, str]
    claims: tuple[StudyClaim, ...]
    published_by_arm: Mapping[str, str] = field(default_factory=dict)

    @property
    def most(self) -> StudyClaim | None:
        """The first claim of the kind "most", over whose presets methods are compared."""
        return next((claim for claim in self.claims if claim.kind == "most"), None)

    @property
    def standing_presets(self) -> tuple[str, ...]:
        """The presets of `most`."""
        return self.most.presets if self.most else ()


def read_claims_file(path: Path = CLAIMS) -> ClaimsFile:
    """Read a claims file.

    Args:
        path: the file.

    Raises:
        FileError: it is missing, or holds no claims.
        StepCreditError: a claim lacks a field or has one out of range; names the claim. More than
            12 are primary.
    """
    content = yaml_mapping(path)
    try:
        check_names(
            content, {"definitions", "published_by_arm", "claims"}, ("definitions", "claims")
        )
        claims = tuple(_claim(given) for given in content["claims"])
    except StepCreditError as error:
        raise error.at(place=str(path)) from error.__cause__
    if len({claim.id for claim in claims}) < len(claims):
        raise FileError("two claims have one id", field=str(path))
    if sum(claim.primary for claim in claims) > MOST_PRIMARY:
        raise FileError(f"more than {MOST_PRIMARY} claims are primary", field=str(path))
    return ClaimsFile(content["definitions"], claims, content.get("published_by_arm", {}))


def _claim(given: Mapping[str, Any]) -> StudyClaim:
    known = {field.name for field in fields(StudyClaim)}
    try:
        check_names(given, known, ("id", "claim", "source", "published", "presets", "compare"))
        check_names(given, known, ("kind", "margin"))
        lists = {n: tuple(given[n]) for n in ("presets", "compare", "signals") if n in given}
        return StudyClaim(**{**given, **lists})
    except StepCreditError as error:
        raise error.at(place=f"claim {given.get('id', '?')}") from error.__cause__
