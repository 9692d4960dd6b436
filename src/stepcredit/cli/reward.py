"""`stepcredit reward`: writes each response's outcome or format reward into its row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepcredit.cli.journal import journal_beside
from stepcredit.cli.options import Imports, Input, import_modules, repeated, settings_of
from stepcredit.cli.output import say
from stepcredit.cli.progress import counting_bar, progress_bar
from stepcredit.errors import RowError, SettingError
from stepcredit.rewards.reward_registry import REWARDS, reward_class

if TYPE_CHECKING:
    from stepcredit.rewards.base import Reward

Names = Annotated[
    list[str],
    typer.Option(
        "--reward",
        metavar="NAME",
        help="maths, exact, qa-em, qa-f1, qa-joint, reasoning-gym, format, or your own. "
        "May be given twice: one reward for the outcome and one for the format.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str],
    repeated(
        "--set",
        "A field of all rewards that have it, or of one: NAME.FIELD=VALUE; VALUE is JSON, or "
        "a bare word.",
        "FIELD=VALUE",
    ),
]
Answer = Annotated[
    str | None,
    typer.Option(metavar="FIELD", help="The field of a row that holds the gold answer."),
]
Text = Annotated[str, typer.Option(metavar="FIELD", help="The field that holds the response.")]


CheckGolds = Annotated[
    bool,
    typer.Option(
        "--check-golds",
        help="Print each gold answer that can't be read before the first response is graded; "
        "without -o nothing is graded.",
    ),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="OUT", help="File to write; - is standard output."),
]


def reward_command(
    source: Input,
    names: Names,
    *,
    output: Output = None,
    check_golds: CheckGolds = False,
    settings: Settings,
    answer: Answer = None,
    text: Text = "text",
    imports: Imports,
) -> None:
    """Write the rollouts with an outcome, or a format and its gate, in the same order.

    All rows and their gold answers are checked before the first is graded. OUT may be the same file
    as IN; it is replaced only once all rows are written. After a stop, the same command continues
    where it stopped.
    """
    from stepcredit.rewards.reward_file import reward_file

    import_modules(imports)
    given = settings_of(settings)
    if answer is not None:
        given["answer"] = answer
    rules = named_rewards(names, given)
    if output is None and not check_golds:
        raise SettingError("-o: needed, unless --check-golds is given")
    faults: list[RowError] = []
    bars = progress_bar(source), counting_bar("grading")
    warnings: list[str] = []
    beside = journal_beside(output, "graded") if output is not None else nullcontext()
    with beside as journal, bars[0] as reading, bars[1] as graded:
        try:
            rows = reward_file(
                source,
                output,
                rules,
                text=text,
                journal=journal,
                progress=graded,
                reading=reading,
                warn=warnings.append,
                unreadable=partial(_say_fault, faults) if check_golds else None,
            )
        except SettingError as error:
            raise error.at(field="--reward") from error.__cause__
    if check_golds:
        say(f"gold answers that can't be read: {len(faults)} of {rows} rows")
    if output is None:
        raise typer.Exit(1 if faults else 0)
    for line in [*tally_lines(rules, rows), *(f"warning: {line}" for line in warnings)]:
        say(line)


def _say_fault(faults: list[RowError], error: RowError) -> None:
    """Say each gold answer that can't be read once, at its first row."""
    if error.reason not in {known.reason for known in faults}:
        say(str(error))
    faults.append(error)


def named_rewards(names: Sequence[str], settings: dict[str, Any]) -> list[Reward]:
    """The rewards that `--reward`, `--set` and `--answer` name.

    Raises:
        SettingError: names the option at fault.
    """
    known: dict[str, set[str]] = {}
    for name in names:
        try:
            known[name] = {each.name for each in fields(reward_class(name))}  # type: ignore[arg-type]
        except SettingError as error:
            raise error.at(field=f"--reward {name}") from error.__cause__
    _check_settings(known, settings)
    return [_build_reward(name, known[name], settings) for name in names]


def _check_settings(known: dict[str, set[str]], settings: Iterable[str]) -> None:
    there = {f"{name}.{each}" for name, declared in known.items() for each in declared}
    there |= {each for declared in known.values() for each in declared}
    for field in settings:
        if field not in there:
            names = " or ".join(known)
            raise SettingError(f"{names} has no such field", field=f"--set {field}")


def _build_reward(name: str, declared: set[str], settings: dict[str, Any]) -> Reward:
    own = {field: value for field, value in settings.items() if field in declared}
    for field, value in settings.items():
        of, dot, plain = field.partition(".")
        if dot and of == name:
            own[plain] = value
    return REWARDS.build(name, own, at=f"--reward {name}", under="--set")


def tally_lines(rules: Iterable[Reward], rows: int) -> Iterable[str]:
    """One line for each of the rewards' counts that is not 0."""
    for rule in rules:
        for what, count in rule.tally.items():
            if count:
                yield f"{rule.name}: {what}: {count} of {rows} rows"
