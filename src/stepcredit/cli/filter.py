"""`stepcredit filter`: keeps the responses whose process scores agree with their outcome."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

import stepcredit as sc
from stepcredit.cli.options import Input
from stepcredit.cli.output import printable, say
from stepcredit.cli.progress import progress_bar
from stepcredit.errors import SettingError

if TYPE_CHECKING:
    from stepcredit.signals.consistency_filter import ConsistencyFilter, FilterCounts

Output = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="OUT", help="File for the rows that are kept; not IN itself."
    ),
]
Keep = Annotated[
    int,
    typer.Option("--keep", metavar="M", help="Responses kept of each group that has more."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only print the counts.", show_default=False)
]
Dropped = Annotated[
    str | None,
    typer.Option("--dropped", metavar="FILE", help="File for the rows that are not kept."),
]
Stream = Annotated[
    str, typer.Option(metavar="NAME", help="The process stream that holds the scores.")
]
RightAbove = Annotated[
    float, typer.Option(metavar="NUMBER", help="A response is right if its outcome is above this.")
]
Rank = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="both; or right: only right responses are ranked, wrong ones are drawn by chance.",
    ),
]
StepPenalty = Annotated[
    float,
    typer.Option(
        metavar="NUMBER",
        help="Taken from the consistency of a response with one step, or with too many.",
    ),
]
MostSteps = Annotated[int, typer.Option(metavar="N", help="The most steps without that penalty.")]
Seed = Annotated[int, typer.Option(help="Of the draw of wrong responses.")]


def filter_command(
    source: Input,
    *,
    output: Output = None,
    keep: Keep,
    dry_run: DryRun = False,
    dropped: Dropped = None,
    stream: Stream = "process",
    right_above: RightAbove = 0.0,
    rank: Rank = "both",
    step_penalty: StepPenalty = 0.0,
    most_steps: MostSteps = 30,
    seed: Seed = 0,
) -> None:
    """Write the rollouts whose process scores agree with their outcome, right and wrong in balance.

    Of each group M responses are kept: right ones with the highest and wrong ones with the lowest
    mean scores, as many of the one as of the other where there are enough. Groups without known
    outcomes are kept whole. IN is never changed, and the rows stay as they are.
    """
    rule = _rule(
        keep=keep,
        stream=stream,
        right_above=right_above,
        rank=rank,
        step_penalty=step_penalty,
        most_steps=most_steps,
        seed=seed,
    )
    _check_files(source, output, dropped, dry_run)
    tell: Callable[[str], None] = say if output is not None else typer.echo
    with (
        progress_bar(source) as progress,
        sc.RolloutFile(source, progress, needs_tokens=False) as file,
    ):
        counts, left = _selected(file, rule)
        if dropped is not None:
            file.select(dropped, left.__contains__)
        if output is not None:
            file.select(output, lambda row: row not in left)
    for line in count_lines(counts):
        tell(printable(line))


def _rule(**fields: object) -> ConsistencyFilter:
    from stepcredit.signals.consistency_filter import ConsistencyFilter

    try:
        return ConsistencyFilter(**fields)  # type: ignore[arg-type]
    except SettingError as error:
        option = f"--{(error.field or '').replace('_', '-')}"
        raise error.at(field=option) from error.__cause__


def _check_files(source: str, output: str | None, dropped: str | None, dry_run: bool) -> None:
    """Refuse files that would overwrite one another, and none without --dry-run.

    Raises:
        SettingError: names the option.
    """
    given = {"-o": output, "--dropped": dropped}
    for option, name in given.items():
        if dry_run and name is not None:
            raise SettingError("goes without --dry-run", field=option)
        if name is not None and name != "-" and _same(name, source):
            raise SettingError("is IN itself: what is dropped would be lost", field=option)
    if output is None and not dry_run:
        raise SettingError("needed, unless --dry-run is given", field="-o")
    if output is not None and dropped is not None and _same(output, dropped):
        raise SettingError("is OUT itself", field="--dropped")


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _selected(file: sc.RolloutFile, rule: ConsistencyFilter) -> tuple[FilterCounts, set[int]]:
    """The counts, and the positions of the rows that are dropped."""
    from stepcredit.signals.consistency_filter import FileSelection

    state: list[FileSelection] = []

    def start() -> FileSelection:
        state[:] = [FileSelection(rule)]
        return state[0]

    found = file.fold(start, FileSelection.add, lambda: state[0].check())
    return found.counts, found.dropped


def count_lines(counts: FilterCounts) -> list[str]:
    """What was kept and dropped, as lines of text.

    Example:
        >>> from stepcredit.signals.consistency_filter import FilterCounts, ScoredResponse
        >>> counts = FilterCounts.none()
        >>> counts.add([ScoredResponse(True, 0.75), ScoredResponse(True, 0.5)], [True, False])
        >>> print(*count_lines(counts), sep="\\n")
        kept     1 of 2 rollouts; 1 group, 1 of them cut
        right    1 of 2 kept; mean score 0.750 kept, 0.500 dropped
        all right or all wrong, cut by their scores alone: 1 group
    """
    kept, dropped = sum(counts.kept.values()), sum(counts.dropped.values())
    lines = [
        f"kept     {kept:,} of {kept + dropped:,} rollouts; {_groups(counts.groups)}, "
        f"{counts.cut:,} of them cut"
    ]
    for kind in ("right", "wrong", "unknown"):
        total = counts.kept[kind] + counts.dropped[kind]
        if total:
            lines.append(
                f"{kind:<8} {counts.kept[kind]:,} of {total:,} kept{_scores(counts, kind)}"
            )
    notes = {
        "all right or all wrong, cut by their scores alone": counts.one_sided,
        "kept whole, because no outcome is known": counts.unknown,
    }
    lines += [f"{what}: {_groups(count)}" for what, count in notes.items() if count]
    if counts.unscored:
        lines.append(
            f"rollouts without scores, which count as the least consistent: {counts.unscored:,}"
        )
    return lines


def _groups(count: int) -> str:
    return f"{count:,} group{'s' * (count != 1)}"


def _scores(counts: FilterCounts, kind: str) -> str:
    both = [(word, counts.mean_score(kind, word == "kept")) for word in ("kept", "dropped")]
    shown = [f"{mean:.3f} {word}" for word, mean in both if mean is not None]
    return f"; mean score {', '.join(shown)}" if shown else ""
