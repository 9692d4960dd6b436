"""Arguments that several commands share, and the estimator that they name."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

import stepcredit as sc
from stepcredit.errors import MethodError, RolloutError, SettingError
from stepcredit.settings.modules import import_named

MAX_BRACKETS = 100
"""The most lists and objects in the value of one `--set`, so that parsing cannot nest too deep."""
COLLECT_AFTER = 50_000
"""New lists and objects after which Python looks for reference cycles while it reads a file.

Rows hold no cycles, and each search visits all of torch's objects: with Python's own number,
searching takes a quarter of the time of `shape` at 30 tokens per rollout.
"""


def repeated(name: str, help: str, metavar: str, panel: str | None = None) -> Any:
    """An option that may be given several times, which its help says; without it, an empty list.

    Args:
        name: of the option, as `--set`.
        help: what it is, in sentences.
        metavar: how its value is shown.
        panel: under which heading it is listed; None: the others'.
    """
    return typer.Option(
        name,
        metavar=metavar,
        help=f"{help} May be repeated.",
        rich_help_panel=panel,
        show_default=False,
        default_factory=list,
    )


INPUT_HELP = "Rollouts: .jsonl, .jsonl.gz or .parquet; - is standard input."
Input = Annotated[str, typer.Argument(metavar="IN", help=INPUT_HELP, show_default=False)]
Method = Annotated[str, typer.Option(help="A method, as `stepcredit methods` lists them.")]
Settings = Annotated[
    list[str],
    repeated("--set", "A field of the method; VALUE is JSON, or a bare word.", "FIELD=VALUE"),
]

Imports = Annotated[
    list[str],
    repeated(
        "--import",
        "A Python module to import first, which registers methods, signals or rewards: its "
        "name, which may be in this folder, or its file.",
        "MODULE",
    ),
]


def import_modules(names: Iterable[str]) -> None:
    """Import the modules that `--import` names, so that they register their classes.

    Raises:
        SettingError: `--import MODULE: reason`.
    """
    try:
        import_named(list(names))
    except SettingError as error:
        raise error.at(under="--import") from error.__cause__


def setting(text: str) -> tuple[str, Any]:
    """FIELD=VALUE; VALUE is JSON, or else a string.

    Raises:
        MethodError: there is no `=`, or the value has more than 100 lists and objects. Its field
            is the text, or what comes before its `=`.

    Example:
        >>> setting("k=0.7"), setting("operator=abs_max")
        (('k', 0.7), ('operator', 'abs_max'))
    """
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise MethodError("expected FIELD=VALUE", field=text)
    if value.count("[") + value.count("{") > MAX_BRACKETS:
        raise MethodError(f"more than {MAX_BRACKETS} lists and objects", field=field)
    try:
        return field, json.loads(value)
    except ValueError:
        return field, value


def settings_of(texts: Iterable[str], option: str | None = "--set") -> dict[str, Any]:
    """The fields that a command's `--set` options name.

    Args:
        texts: each FIELD=VALUE.
        option: the option that errors name; None: they name the field alone.

    Raises:
        MethodError: a text without `=`, or two for the same field.

    Example:
        >>> settings_of(["k=0.7", "operator=abs_max"])
        {'k': 0.7, 'operator': 'abs_max'}
    """
    found: dict[str, Any] = {}
    try:
        for field, value in map(setting, texts):
            if field in found:
                raise MethodError("is given twice", field=field)
            found[field] = value
    except MethodError as error:
        raise error.at(under=option) from error.__cause__
    return found


def named_estimator(method: str, settings: Iterable[str] = ()) -> sc.Estimator:
    """The estimator that `--method` and `--set` name.

    Raises:
        MethodError: names the option at fault.
    """
    from stepcredit.credit.method_registry import METHODS

    return METHODS.build(method, settings_of(settings), at=f"--method {method}", under="--set")


def named_variant(text: str, place: str) -> sc.Estimator:
    """The estimator that `NAME` or `NAME:FIELD=VALUE,FIELD=VALUE` names.

    Args:
        text: as given.
        place: how errors name it.

    Raises:
        SettingError: `PLACE: reason`.

    Example:
        >>> named_variant('pass:k=0.5,weights={"process": 1, "outcome": 2}', "METHOD").weights
        {'process': 1, 'outcome': 2}
    """
    from stepcredit.credit.method_registry import METHODS

    name, _, rest = text.partition(":")
    fields: dict[str, Any] = {}
    try:
        if rest:
            fields = settings_of(re.split(r",(?=\w+=)", rest), option=None)
        return METHODS.build(name, fields)
    except SettingError as error:
        raise error.at(place=place) from error.__cause__


@contextmanager
def fewer_collections() -> Iterator[None]:
    """Look for reference cycles only after `COLLECT_AFTER` new objects; not more often than set.

    Example:
        >>> before = gc.get_threshold()
        >>> with fewer_collections():
        ...     gc.get_threshold()[0] >= before[0]
        True
        >>> gc.get_threshold() == before
        True
    """
    before = gc.get_threshold()
    if 0 < before[0] < COLLECT_AFTER:
        gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


class FileEstimator:
    """An estimator that treats a whole file as one batch.

    One part of the file may lack a stream that another part has, so `finish` checks the whole file.
    It runs on one thread: its blocks are small, and a second thread makes it slower (5 to 12 times,
    at 500 scored tokens per rollout).

    Args:
        estimator: any estimator.
        file: the rollouts; read once more for each of `batch_scale` and `batch_step` that the
            estimator has.
    """

    def __init__(self, estimator: sc.Estimator, file: sc.RolloutFile) -> None:
        import torch

        torch.set_num_threads(1)
        self.estimator = estimator
        self.signals: set[str] = set()
        self.moments = sc.Moments()
        if estimator.batch_scale is not None:
            scale = file.fold(float, lambda s, b: max(s, self._scale(b.rollouts)), self.finish)
            self.estimator = estimator.at_scale(scale)
        if estimator.batch_step is not None:
            self.moments = file.fold(
                sc.Moments, lambda m, b: m + self._moments(b.rollouts), self.finish
            )

    def _scale(self, rollouts: sc.Rollouts) -> float:
        self.see(rollouts)
        return self.estimator.scale_of(rollouts)

    def _moments(self, rollouts: sc.Rollouts) -> sc.Moments:
        self.see(rollouts)
        try:
            return self.estimator.moments(rollouts)
        except MethodError as error:
            raise self.unfit(error) from None

    def __call__(self, rollouts: sc.Rollouts) -> sc.Advantages:
        self.see(rollouts)
        try:
            return self.estimator(rollouts, moments=self.moments)
        except MethodError as error:
            raise self.unfit(error) from None

    def see(self, rollouts: sc.Rollouts) -> None:
        """Note which process streams the file has."""
        from stepcredit.credit.stages.process_streams import process_signals

        self.signals.update(process_signals(rollouts))

    def finish(self) -> None:
        """Refuse a file in which no group has a stream that the method needs.

        Raises:
            RolloutError: names the option.
        """
        try:
            self.estimator.check_streams(sorted(self.signals))
        except MethodError as error:
            raise self.unfit(error) from None

    def unfit(self, error: MethodError) -> RolloutError:
        """The method's error as an error of the rollouts, under the option's name."""
        option = f"--set {error.field}" if error.field else f"--method {self.estimator.name}"
        return RolloutError(error.reason, field=option)
