"""`stepcredit score`: writes a signal's scores into each row."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stepcredit as sc
from stepcredit.cli.journal import journal_beside
from stepcredit.cli.options import Imports, Input, import_modules, repeated, settings_of
from stepcredit.cli.output import printable, say
from stepcredit.cli.progress import counting_bar
from stepcredit.cli.served_counts import say_served
from stepcredit.cli.shape import Output
from stepcredit.errors import SettingError, first_line
from stepcredit.requires import require

if TYPE_CHECKING:
    from stepcredit.signals.row_scores import RowReader
    from stepcredit.signals.score_file import Scoring

Name = Annotated[
    str,
    typer.Option("--signal", metavar="NAME", help="A signal, as `stepcredit signals` lists them."),
]
Settings = Annotated[
    list[str],
    repeated("--set", "A field of the signal; VALUE is JSON, or a bare word.", "FIELD=VALUE"),
]
Maps = Annotated[
    list[str],
    typer.Option(
        "--map",
        metavar="MAP",
        help="A map applied to the scores: affine:scale=2,shift=-1, smooth:amount=0.1, "
        "clip:low=-1,high=1, difference:start=0, discounted:gamma=0.95, cap-filler:most=0, "
        "aggregate:how=min. May be repeated: they are applied in turn.",
        show_default=False,
        default_factory=list,
    ),
]
Stream = Annotated[
    str,
    typer.Option(
        "--as",
        metavar="STREAM",
        help="The name of the written stream: process, another name (under `signals`), or a "
        "log-prob field such as teacher_logprobs.",
    ),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace", help="Overwrite an existing stream of that name.", show_default=False
    ),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="The policy's tokenizer. Without it, the tokens of rows that have none are words.",
        show_default=False,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="blank-line, newline, sentence, tags, regex, newline-tokens, turns; NAME:FIELD=VALUE "
        "sets a field. Default: the rows' step_ends, else blank-line.",
        show_default=False,
    ),
]
Question = Annotated[str, typer.Option(metavar="FIELD", help="The field that holds the question.")]
Chat = Annotated[
    bool,
    typer.Option(
        "--chat",
        help="For rows without prompt tokens: put the question as a user's turn into the "
        "tokenizer's chat template, instead of its bare text.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only print the requests and tokens, or the samples, that scoring would take. "
        "OUT is not written.",
        show_default=False,
    ),
]
CachePath = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="PATH",
        help="File that keeps the scores for later runs. Default: a file beside OUT, deleted when "
        "OUT is written.",
        show_default=False,
    ),
]


def score_command(
    source: Input,
    output: Output,
    name: Name,
    *,
    settings: Settings,
    maps: Maps,
    stream: Stream = "process",
    replace: Replace = False,
    tokenizer: Tokenizer = None,
    split: Split = None,
    question: Question = "prompt",
    chat: Chat = False,
    cache: CachePath = None,
    dry_run: DryRun = False,
    imports: Imports,
) -> None:
    """Write the rollouts with a signal's scores, in the same order.

    All rows are checked before the first is scored.
    OUT may be the same file as IN; it is replaced only once all rows are written.
    After a stop, the same command continues where it stopped.
    """
    from stepcredit.signals.score_file import score_file

    import_modules(imports)
    signal = named_signal(name, settings)
    reader = row_reader(tokenizer, split, question, chat=chat)
    scoring = _scoring(signal, reader, stream, replace=replace)
    if dry_run:
        print_cost(source, signal, reader)
        return
    with (
        with_kept_scores(signal, output, cache) as cached,
        counting_bar(f"scoring with {name}") as progress,
    ):
        final = dataclasses.replace(scoring, signal=map_scores(cached, maps))
        left_out = partial(say_left_out, name)
        score_file(source, output, final, progress=progress, left_out=left_out)
    say_served(name, signal.served_statistics())


def print_cost(source: str, signal: sc.Signal, reader: RowReader) -> None:
    """Print what scoring a file would take, one line per signal that counts it beforehand.

    Raises:
        SettingError: no part of the signal counts it.
    """
    from stepcredit.signals.score_file import read_responses

    responses = read_responses(source, reader)
    costs = [(part.name, part.cost(responses)) for part in signal.walk()]
    known = [f"{name}: {cost}" for name, cost in costs if cost is not None]
    if not known:
        raise SettingError(f"{signal.name} counts no cost beforehand", field="--dry-run")
    for line in known:
        typer.echo(printable(line))


def say_left_out(name: str, counts: Mapping[str, int]) -> None:
    """Say how many responses could not be scored, or not to their end.

    Example:
        >>> say_left_out("prm", {"unscored": 2, "cut": 1})
    """
    meanings = {"unscored": "not scored", "cut": "scored only up to a step before the last"}
    parts = [f"{counts[kind]} {meaning}" for kind, meaning in meanings.items() if counts.get(kind)]
    say(f"{name}: responses too long for the model, or empty: {', '.join(parts)}")


def _scoring(signal: sc.Signal, reader: RowReader, stream: str, *, replace: bool) -> Scoring:
    from stepcredit.signals.score_file import Scoring

    try:
        return Scoring(signal, reader, stream, replace)
    except SettingError as error:
        raise error.at(under="--as") from error.__cause__


def named_signal(name: str, settings: list[str]) -> sc.Signal:
    """The signal that `--signal` and `--set` name.

    Raises:
        SettingError: names the option at fault.
    """
    values = settings_of(settings)
    try:
        return _built_signal(name, values)
    except SettingError as error:
        option = "--set" if error.field else f"--signal {name}"
        raise error.at(under=option) from error.__cause__


def _built_signal(name: str, values: dict[str, Any]) -> sc.Signal:
    """A signal whose rewards are named as in `stepcredit rewards`, also one inside another."""
    from stepcredit.signals.combine import MappedSignal
    from stepcredit.signals.signal_registry import SIGNALS

    kind = SIGNALS.named(name)
    for field in values.keys() & set(kind.reward_fields):
        values[field] = named_reward(values[field], field)
    if kind.notice_field is not None:
        values[kind.notice_field] = lambda notice: say(f"{name}: {notice}")
    if issubclass(kind, MappedSignal) and "signal" in values:
        inner, fields = SIGNALS.inner_settings(values["signal"], "signal")
        try:
            values["signal"] = _built_signal(inner, dict(fields))
        except SettingError as error:
            raise error.at(under="signal") from error.__cause__
    return SIGNALS.build(name, values)


def named_reward(value: Any, field: str) -> Any:
    """A reward by its name in `stepcredit rewards`, or by a dict of `name` and its fields.

    Raises:
        SettingError: there is no such reward or field; `field` holds it.
    """
    from stepcredit.rewards.reward_registry import REWARDS

    given = {"name": value} if isinstance(value, str) and ":" not in value else value
    if not isinstance(given, dict):
        return value
    fields = {name: each for name, each in given.items() if name != "name"}
    return REWARDS.build(str(given.get("name")), fields, at=field, under=field)


def map_scores(signal: sc.Signal, maps: list[str]) -> sc.Signal:
    """The signal with each `--map` applied to its scores in turn.

    Raises:
        SettingError: `--map TEXT: reason`.

    Example:
        >>> from stepcredit.signals.signal_registry import SIGNALS
        >>> map_scores(SIGNALS.build("equations"), ["clip:high=0.5"]).high
        0.5
    """
    from stepcredit.signals.combine import MAPS

    for text in maps:
        name, _, rest = text.partition(":")
        try:
            fields = settings_of(filter(None, rest.split(",")), option=None)
            if "signal" in fields:
                raise SettingError(f"{name} has no such field", field="signal")
            signal = MAPS.build(name, {"signal": signal, **fields})
        except SettingError as error:
            raise error.at(place=f"--map {text}") from error.__cause__
    return signal


def row_reader(tokenizer: str | None, split: str | None, question: str, *, chat: bool) -> RowReader:
    """The reader of rows that `--tokenizer`, `--split`, `--question` and `--chat` name.

    Raises:
        SettingError: names the option at fault.
    """
    from stepcredit.signals.row_scores import RowReader

    if chat and tokenizer is None:
        raise SettingError("--chat: needs --tokenizer")
    loaded: Any = None if tokenizer is None else loaded_tokenizer(tokenizer)
    if chat and loaded.chat_template is None:
        raise SettingError(f"--chat: {tokenizer} has no chat template")
    return RowReader(
        tokenizer=loaded,
        splitter=None if split is None else named_splitter(split),
        question=question,
        chat=chat,
    )


def named_splitter(text: str) -> Any:
    """The splitter that `NAME` or `NAME:FIELD=VALUE` names.

    Raises:
        SettingError: `--split TEXT: reason`.

    Example:
        >>> named_splitter("regex:pattern=;").pattern
        ';'
    """
    from stepcredit.signals.splitting import SPLITTERS

    name, colon, rest = text.partition(":")
    try:
        return SPLITTERS.build(name, settings_of([rest] if colon else [], option=None))
    except SettingError as error:
        raise error.at(place=f"--split {text}") from error.__cause__


def loaded_tokenizer(path: str) -> Any:
    """The tokenizer that `--tokenizer` names.

    Raises:
        SettingError: it can't be loaded.
    """
    require("signals", "transformers")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except Exception as error:  # a damaged file raises all kinds of errors
        raise SettingError(first_line(error), field=f"--tokenizer {path}") from None


@contextmanager
def with_kept_scores(signal: sc.Signal, output: str, cache: Path | None) -> Iterator[sc.Signal]:
    """The signal, with its scores kept in `cache`, or else on disk until the output is written.

    Raises:
        SettingError: `--cache` with a signal whose scores depend on the other responses.
    """
    from stepcredit.signals.cache import Cached

    if cache is not None and not signal.cacheable:
        raise SettingError(f"--cache: the scores of {signal.name} depend on the other responses")
    if cache is not None:
        yield Cached(signal, cache)
    elif not signal.cacheable:
        yield signal
    else:
        with journal_beside(output, "scored") as journal:
            yield signal if journal is None else Cached(signal, journal)
