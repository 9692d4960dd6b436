"""Responses and groups that a log holds more than once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np

from stepcredit.audit.check_registry import AuditInput, register_check
from stepcredit.audit.checks.lints import PLACES, first_places
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding, Unchecked
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.data.rules import counted

REPEATED = "repeated responses"
MANY_REPEATED = 0.5
"""Small tasks repeat short answers; if half of the responses are repeated, groups hold little."""
LEAST_TEXT = 100
"""Characters of a group: fewer may be equal to another group's by chance."""


@register_check(REPEATED)
def check_repeated(data: AuditInput) -> CheckResult:
    """Responses equal to an earlier one of their group, and groups that are logged twice."""
    batch, group = data.batch, data.batch.rollouts.group_index.tolist()
    known = [at for at, text in enumerate(batch.texts) if text is not None]
    if not known:
        reason = "No row holds the text or the tokens of its response."
        return CheckResult(unchecked=(Unchecked(REPEATED, "text", reason),))
    of = [group[at] for at in known]
    keys = [hash(batch.texts[at]) for at in known]
    again = repeats(list(zip(of, keys, strict=True)))
    share = sum(again) / len(again)
    enough = _with_enough_text(batch, known, group)
    twice = [each for each in equal_groups(keys, of) if each in enough]
    figures = (
        AuditFigure(
            "share of responses equal to an earlier one of their group",
            share,
            len(again),
            "responses",
            worse="higher",
        ),
        AuditFigure("groups that repeat an earlier group", len(twice), len(set(of)), "groups"),
    )
    rows = np.array([at for at, is_again in zip(known, again, strict=True) if is_again])
    found = []
    if twice:
        found.append(_logged_twice(twice, group, figures[1]))
    if share >= MANY_REPEATED:
        sentence = f"{share:.0%} of the responses are equal to an earlier one of their group."
        advice = "Raise the sampling temperature, or look whether the log holds rows twice."
        places, topic = first_places(rows), "many responses equal to another of their group"
        found.append(
            Finding(REPEATED, "warn", sentence, (figures[0],), advice, places, share, topic)
        )
    return CheckResult(figures, tuple(found))


def _logged_twice(twice: list[int], group: list[int], figure: AuditFigure) -> Finding:
    sentence = f"{counted(len(twice), 'group')} hold the same responses as an earlier group: the "
    sentence += "log was read or written twice."
    advice = "Leave the repeated rows out, or the file that holds them again."
    rows = np.array([group.index(each) for each in twice[:PLACES]])
    places, topic = first_places(rows), "groups logged twice"
    return Finding(REPEATED, "warn", sentence, (figure,), advice, places, topic=topic)


def _with_enough_text(batch: LoggedBatch, rows: list[int], group: list[int]) -> set[int]:
    """Groups whose responses differ and are long, so that no other equals them by chance."""
    texts: dict[int, list[str]] = defaultdict(list)
    for at in rows:
        texts[group[at]].append(batch.texts[at] or "")
    return {
        of for of, each in texts.items() if len(set(each)) > 1 and sum(map(len, each)) >= LEAST_TEXT
    }


def repeats(keys: Sequence[Hashable]) -> list[bool]:
    """Whether each key was there before.

    Example:
        >>> repeats(["a", "b", "a"])
        [False, False, True]
    """
    firsts = {key: at for at, key in reversed(list(enumerate(keys)))}
    return [firsts[key] != at for at, key in enumerate(keys)]


def equal_groups(keys: Sequence[int], group: Sequence[int]) -> list[int]:
    """The groups of two responses or more that hold the same keys as an earlier group.

    Example:
        >>> equal_groups([7, 8, 8, 7, 9], [0, 0, 1, 1, 2])
        [1]
    """
    held: dict[int, list[int]] = defaultdict(list)
    for key, of in zip(keys, group, strict=True):
        held[of].append(key)
    several = [of for of, found in held.items() if len(found) > 1]
    again = repeats([tuple(sorted(held[of])) for of in several])
    return [of for of, is_again in zip(several, again, strict=True) if is_again]
