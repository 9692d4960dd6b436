"""Which responses an attack edits, and the edited responses."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepcredit.audit.attack.editable import AddedTexts, EditableSteps, NotEditable
from stepcredit.audit.attack.edited_response import Cutter, editable, edited_response, token_ranges
from stepcredit.audit.attack.edits import EDITS, Edit
from stepcredit.keys import keyed_seed
from stepcredit.signals.responses import Response


@dataclass(frozen=True, eq=False)
class AttackedResponse:
    """A logged response.

    Args:
        group: label of its group.
        response: split into steps.
        fields: the row's fields.
        right: what is known of each step: right, wrong or None; empty: nothing.
    """

    group: str
    response: Response
    fields: Mapping[str, Any]
    right: tuple[bool | None, ...] = ()


@dataclass(frozen=True, eq=False)
class EditedCopy:
    """An edited response, which stands in its original's place.

    Args:
        edit: the edit.
        row: number of the original among the attacked responses.
        response: the edited response.
        step: number of the step at which the edit can be seen, before and after it.
        before, after: that step's first token and the one behind its last, in the original and
            here.
    """

    edit: Edit
    row: int
    response: Response
    step: int
    before: tuple[int, int]
    after: tuple[int, int]


@dataclass(frozen=True)
class EditSettings:
    """How responses are edited.

    Args:
        edits: the edits.
        cutter: makes tokens of new text.
        texts: what the edits add.
        seed: seed of all draws.
    """

    edits: Sequence[Edit] = tuple(EDITS.values())
    cutter: Cutter = field(default_factory=Cutter)
    texts: AddedTexts = field(default_factory=AddedTexts)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class AttackPlan:
    """What is scored: logged responses in whole groups, and their edited copies.

    Args:
        rows: the logged responses, group by group.
        groups: the numbers of each group's responses.
        copies: the edited responses.
        left_out: by edit, why it could not be applied, and to how many responses.
        edits: the edits.
    """

    rows: Sequence[AttackedResponse]
    groups: Sequence[range]
    copies: Sequence[EditedCopy]
    left_out: Mapping[str, Mapping[str, int]]
    edits: Sequence[Edit]

    @property
    def responses(self) -> list[Response]:
        """All that is scored: the logged responses, then the edited ones."""
        return [row.response for row in self.rows] + [copy.response for copy in self.copies]


def plan_attack(
    rows: Sequence[AttackedResponse], settings: EditSettings | None = None, limit: int | None = None
) -> AttackPlan:
    """The edited copies of logged responses.

    Args:
        rows: logged responses, split into steps.
        settings: how they are edited; None: every edit.
        limit: about how many responses are edited. Groups are drawn by the seed and taken whole
            until the next one would pass the limit; at least one. None: all.

    Returns:
        The plan; an edit that can't be applied to a response is counted with the reason.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> response = Newline().split(Response.of_text("2+2?", "2 + 2 = 4\\nSo 4", name="a"))
        >>> plan = plan_attack([AttackedResponse("1", response, {"group": 1})])
        >>> len(plan.copies), dict(plan.left_out["swap-step"])
        (8, {'no other response of the group has a step that it lacks': 1})
    """
    settings = settings or EditSettings()
    kept, groups = _whole_groups(rows, limit, settings.seed)
    longest = max((len(row.response.text) for row in rows), default=0)
    copies, left_out = list[EditedCopy](), {edit.name: Counter[str]() for edit in settings.edits}
    for group in groups:
        for row, before in zip(group, _group_steps(kept, group, longest, settings), strict=True):
            for edit in settings.edits:
                made = _copy(edit, row, kept[row].response, before, settings.cutter)
                if isinstance(made, EditedCopy):
                    copies.append(made)
                else:
                    left_out[edit.name][made.reason] += 1
    return AttackPlan(kept, groups, copies, left_out, settings.edits)


def _whole_groups(
    rows: Sequence[AttackedResponse], limit: int | None, seed: int
) -> tuple[list[AttackedResponse], list[range]]:
    """The responses of the groups that are kept, and the numbers of each group's responses."""
    groups = defaultdict[str, list[AttackedResponse]](list)
    for row in rows:
        groups[row.group].append(row)
    labels = list(groups)
    if limit is not None:
        labels.sort(key=lambda label: keyed_seed(seed, "attacked group", label))
    kept, numbers = list[AttackedResponse](), list[range]()
    for label in labels:
        if limit is not None and kept and len(kept) + len(groups[label]) > limit:
            break
        numbers.append(range(len(kept), len(kept) + len(groups[label])))
        kept += groups[label]
    return kept, numbers


def _group_steps(
    rows: Sequence[AttackedResponse], group: range, longest: int, settings: EditSettings
) -> Iterator[EditableSteps]:
    """Each response of a group, as edits see it."""
    responses = [rows[row].response for row in group]
    for place, row in enumerate(group):
        yield editable(
            responses,
            place,
            limit=longest,
            right=rows[row].right,
            texts=settings.texts,
            seed=settings.seed,
        )


def _copy(
    edit: Edit, row: int, original: Response, before: EditableSteps, cutter: Cutter
) -> EditedCopy | NotEditable:
    after = edit.apply(before)
    if isinstance(after, NotEditable):
        return after
    made = edited_response(original, after, cutter, edit.name)
    if isinstance(made, NotEditable):
        return made
    places = (token_ranges(response)[after.at] for response in (original, made))
    return EditedCopy(edit, row, made, after.at, *places)
