"""`stepcredit audit`: what logged rollouts show of a signal, and of the credit of methods."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import typer

from stepcredit.cli.audit_selftest import selftest_option
from stepcredit.cli.convert import From, reading_logs
from stepcredit.cli.options import Imports, fewer_collections, import_modules, settings_of
from stepcredit.cli.output import FOUND
from stepcredit.cli.progress import counting_bar
from stepcredit.errors import MethodError, SettingError
from stepcredit.requires import require

if TYPE_CHECKING:
    from stepcredit.audit.audit_report import AuditReport
    from stepcredit.audit.check_registry import Check
    from stepcredit.credit.estimator import Estimator

DEFAULT_METHODS = ("pass", "pure", "pass-min", "grpo")
"""Methods that are compared where none is named: three that read a process signal, and GRPO."""
FAILING = ("warn", "fault")

Source = Annotated[
    str,
    typer.Argument(
        metavar="IN",
        help="Rollouts: .jsonl, .jsonl.gz or .parquet; or a log, or a folder of logs, that "
        "`stepcredit convert` reads.",
        show_default=False,
    ),
]
Page = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PAGE",
        help="Write the report as one HTML file.",
        show_default=False,
    ),
]
JsonFile = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the report as JSON.", show_default=False),
]
AuditedMethods = Annotated[
    list[str],
    typer.Option(
        "--method",
        help="A method whose credit is looked at, as `stepcredit methods` lists them. May be "
        f"repeated. Default: {', '.join(DEFAULT_METHODS)}.",
        show_default=False,
        default_factory=list,
    ),
]
AuditSettings = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="A field of the methods that have it; VALUE is JSON, or a bare word. May be repeated.",
        show_default=False,
        default_factory=list,
    ),
]
Conformance = Annotated[
    bool,
    typer.Option(
        "--conformance",
        help="Only compare the advantages that the file holds with those of the methods, and name "
        "the fault where they differ. Default methods: all.",
        show_default=False,
    ),
]
SelfTest = Annotated[
    bool,
    typer.Option(
        "--selftest",
        help="Plant faults in generated logs, print which are found and how often clean logs are "
        "accused, and end; IN is not needed.",
        is_eager=True,
        callback=selftest_option,
        show_default=False,
    ),
]
AttackFile = Annotated[
    str | None,
    typer.Option(
        "--attack",
        metavar="FILE",
        help="What `stepcredit attack --json FILE` found on these responses: it becomes a part of "
        "the report.",
        show_default=False,
    ),
]
FailOn = Annotated[
    str | None,
    typer.Option(
        metavar="SEVERITY",
        help="End with exit code 3 where there is such a finding, or a worse one: warn or fault. "
        "A refused input ends with 1.",
        show_default=False,
    ),
]


def audit_command(
    source: Source,
    *,
    output: Page = None,
    json_file: JsonFile = None,
    methods: AuditedMethods,
    settings: AuditSettings,
    format_name: From = None,
    fail_on: FailOn = None,
    conformance: Conformance = False,
    attack_file: AttackFile = None,
    selftest: SelfTest = False,
    imports: Imports,
) -> None:
    """Show what a signal would teach: faults of the data, what each method pays, what is gamed."""
    from stepcredit.cli.audit_summary import summary_text
    from stepcredit.data.files.atomic import write_json

    if fail_on is not None and fail_on not in FAILING:
        raise SettingError(f"--fail-on {fail_on}: expected {' or '.join(FAILING)}")
    require("report", "scipy")  # intervals
    if conformance and attack_file is not None:
        raise SettingError("--attack: --conformance compares stored advantages, and nothing else")
    import_modules(imports)
    chosen = audited_methods(methods or _default_methods(conformance, settings), settings)
    _check_outputs(output, json_file)
    report = _report(source, format_name, chosen, conformance, attack_file)
    if json_file is not None:
        write_json(json_file, report.as_json())
    if output is not None:
        _write_page(output, report)
    if "-" not in (output, json_file):
        typer.echo(summary_text(report))
    if fail_on is not None and report.is_at_least(fail_on):
        raise typer.Exit(FOUND)


def _default_methods(conformance: bool, settings: list[str]) -> list[str]:
    from stepcredit.credit.method_registry import METHODS

    if conformance and settings:
        raise SettingError(
            "--set: --conformance needs --method beside it, to say whose field it is"
        )
    return METHODS.names() if conformance else list(DEFAULT_METHODS)


def audited_methods(names: list[str], settings: list[str]) -> dict[str, Estimator]:
    """The methods of `--method`, each with those fields of `--set` that it has.

    Raises:
        MethodError: an unknown method, a field that none of them has, or a value out of range.
    """
    from stepcredit.credit.method_registry import METHODS

    given, found, used = settings_of(settings), dict[str, "Estimator"](), set[str]()
    for name in names:
        has = _fields_of(name)
        own = {field: value for field, value in given.items() if field in has}
        used |= own.keys()
        found[name] = METHODS.build(name, own, at=f"--method {name}", under="--set")
    for field in given:
        if field not in used:
            raise MethodError(f"--set {field}: none of {', '.join(found)} has such a field")
    return found


def _fields_of(name: str) -> set[str]:
    from stepcredit.credit.method_registry import METHODS

    try:
        kind = METHODS.named(name)
    except MethodError as error:
        raise error.at(under=f"--method {name}") from None
    return {field.name for field in fields(kind) if field.init}  # type: ignore[arg-type]


def _report(
    source: str,
    format_name: str | None,
    methods: dict[str, Estimator],
    conformance: bool,
    attack_file: str | None,
) -> AuditReport:
    from stepcredit.audit.attack.attack_check import SavedAttack, with_attack
    from stepcredit.audit.audit_report import audit
    from stepcredit.audit.logged_batch import LoggedBatch

    attack = None if attack_file is None else SavedAttack.read(attack_file)
    with fewer_collections(), reading_logs():
        batch = LoggedBatch.read(source, format_name)
        if attack is not None:
            attack.check_rows(batch)
        with counting_bar("checks") as show:
            progress = None if show is None else lambda _, done, count: show(done, count)
            checks = conformance_check() if conformance else None
            report = audit(batch, methods, checks=checks, progress=progress)
    if attack is not None:
        report = with_attack(report, attack)
    return report


def conformance_check() -> dict[str, Check]:
    """The comparison of stored advantages with those of methods, as the only check."""
    from stepcredit.audit.conformance import CONFORMANCE, check_conformance

    return {CONFORMANCE: check_conformance}


def _check_outputs(page: str | None, json_file: str | None) -> None:
    """Refuse what can't be written before the work begins."""
    from stepcredit.data.files.atomic import check_writable

    if page is not None:
        require("report", "jinja2", "matplotlib")
    for path in (page, json_file):
        if path is not None:
            check_writable(path)


def _write_page(path: str, report: AuditReport) -> None:
    from stepcredit.audit.audit_page import audit_page
    from stepcredit.data.files.atomic import replacing

    text = audit_page(report)
    with replacing(path) as out:
        out.write(text.encode())
