"""`stepcredit audit`: what logged rollouts show of a signal, and of the credit of methods."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import typer

from stepcredit.cli.audit_plan import AuditPlan
from stepcredit.cli.audit_run import Outputs, Report, RunWatch, audit_steps
from stepcredit.cli.audit_selftest import selftest_option
from stepcredit.cli.convert import From, reading_logs
from stepcredit.cli.options import Imports, fewer_collections, import_modules, repeated, settings_of
from stepcredit.cli.output import FOUND
from stepcredit.cli.progress import counting_bar
from stepcredit.errors import MethodError, SettingError
from stepcredit.requires import require
from stepcredit.settings.fields import checked_number

if TYPE_CHECKING:
    from stepcredit.audit.audit_report import AuditReport
    from stepcredit.audit.check_registry import Check
    from stepcredit.audit.diff_report import DiffReport
    from stepcredit.credit.estimator import Estimator
DEFAULT_METHODS = ("pass", "pure", "pass-min", "grpo")
"""Methods that are compared where none is named: three that read a process signal, and GRPO."""
FAILING = ("warn", "fault")

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="IN...",
        help="Rollouts: .jsonl, .jsonl.gz or .parquet; or a log, or a folder of logs, that "
        "`stepcredit convert` reads; or the folder of a run, which is followed step by step; or "
        "RUN@STEP, one step of a run. Two of them with --diff.",
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
    repeated(
        "--set",
        "A field of the methods that have it; VALUE is JSON, or a bare word.",
        "FIELD=VALUE",
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
Diff = Annotated[
    bool,
    typer.Option(
        "--diff",
        help="Compare two: what became better paid, which findings appeared and vanished, and "
        "which responses changed most. IN are two files, or two steps RUN@STEP.",
        show_default=False,
    ),
]
RightAbove = Annotated[
    float | None,
    typer.Option(
        metavar="NUMBER",
        help="A response is right where its outcome is above this. Default: what the run recorded, "
        "or else 0.",
        show_default=False,
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Follow a run while it trains: audit each new step, and write the page again, until "
        "Ctrl-C.",
        show_default=False,
    ),
]
Every = Annotated[
    float,
    typer.Option(metavar="SECONDS", min=0.1, help="How often --watch looks for new steps."),
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
    sources: Sources,
    *,
    output: Page = None,
    json_file: JsonFile = None,
    methods: AuditedMethods,
    settings: AuditSettings,
    format_name: From = None,
    fail_on: FailOn = None,
    conformance: Conformance = False,
    attack_file: AttackFile = None,
    diff: Diff = False,
    right_above: RightAbove = None,
    watch: Watch = False,
    every: Every = 5.0,
    selftest: SelfTest = False,
    imports: Imports,
) -> None:
    """Show what a signal would teach: faults of the data, what each method pays, what is gamed."""
    from stepcredit.audit.attack.attack_check import SavedAttack

    if fail_on is not None and fail_on not in FAILING:
        raise SettingError(f"--fail-on {fail_on}: expected {' or '.join(FAILING)}")
    require("report", "scipy")  # intervals
    if conformance and attack_file is not None:
        raise SettingError("--attack: --conformance compares stored advantages, and nothing else")
    import_modules(imports)
    chosen = audited_methods(methods or _default_methods(conformance, settings), settings)
    outputs = Outputs(output, json_file)
    _check_outputs(outputs, watch)
    checks = conformance_check() if conformance else None
    attack = None if attack_file is None else SavedAttack.read(attack_file)
    plan = AuditPlan(
        format_name=format_name,
        methods=chosen,
        checks=checks,
        attack=attack,
        named=tuple(methods),
        has_settings=bool(settings),
        right_above=_right_above(right_above, conformance),
    )
    report: Report
    if diff:
        report = _diff(sources, plan, watch)
        outputs.write(report)
    else:
        report = _report(_only(sources), plan, outputs, every if watch else None)
    if not outputs.is_standard:
        typer.echo(_summary(report))
    if fail_on is not None and report.is_at_least(fail_on):
        raise typer.Exit(FOUND)


def _only(sources: list[str]) -> str:
    if len(sources) > 1:
        raise SettingError(f"{sources[1]}: one file or folder is audited; --diff compares two")
    return sources[0]


def _diff(sources: list[str], plan: AuditPlan, is_watched: bool) -> DiffReport:
    """The reports of two files or steps, side by side.

    Raises:
        SettingError: there are not two, or they are watched.
    """
    from stepcredit.audit.diff_report import DiffReport

    plan.check_no_attack("two")
    if is_watched:
        raise SettingError("--watch: --diff compares what there is now")
    if len(sources) != 2:
        given = ", ".join(sources)
        raise SettingError(f"--diff: expected two files, or two steps RUN@STEP, got {given}")
    return DiffReport(*(_report_of_file(source, plan) for source in sources))


def _right_above(given: float | None, conformance: bool) -> float | None:
    if given is None:
        return None
    if conformance:
        raise SettingError("--right-above: --conformance compares stored advantages, and no more")
    return checked_number(given, "--right-above")


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


def _report(source: str, plan: AuditPlan, outputs: Outputs, every: float | None) -> Report:
    """The report of a file, of one step, or of a run, written where the outputs say.

    Args:
        source: the file, folder or step.
        plan: how it is audited.
        outputs: what is written.
        every: seconds between two looks at a run that is watched; None: what there is now.
    """
    from stepcredit.audit.run_log import run_log
    from stepcredit.audit.run_report import RunFollower

    if every is not None:
        plan.check_no_attack("a run")
        watch = RunWatch(source, outputs, every)
        log = watch.log(plan.format_name)
        own = plan.own_credit(source)
        return watch.run(RunFollower(log, plan.methods, plan.checks, own))
    found = run_log(source, plan.format_name)
    report: Report
    if found is None:
        report = _report_of_file(source, plan)
    else:
        plan.check_no_attack("a run")
        own = plan.own_credit(source)
        report = audit_steps(RunFollower(found, plan.methods, plan.checks, own))
    outputs.write(report)
    return report


def _report_of_file(source: str, plan: AuditPlan) -> AuditReport:
    from stepcredit.audit.attack.attack_check import with_attack
    from stepcredit.audit.run_log import batch_of

    with fewer_collections(), reading_logs():
        batch = batch_of(source, plan.format_name)
        if plan.attack is not None:
            plan.attack.check_rows(batch)
        with counting_bar("checks") as show:
            progress = None if show is None else lambda _, done, count: show(done, count)
            report = plan.audit(batch, progress)
    return report if plan.attack is None else with_attack(report, plan.attack)


def _summary(report: Report) -> str:
    from stepcredit.audit.diff_report import DiffReport
    from stepcredit.audit.run_report import RunReport
    from stepcredit.cli.audit_summary import summary_text
    from stepcredit.cli.diff_summary import diff_summary_text
    from stepcredit.cli.run_summary import run_summary_text

    if isinstance(report, DiffReport):
        return diff_summary_text(report)
    return run_summary_text(report) if isinstance(report, RunReport) else summary_text(report)


def conformance_check() -> dict[str, Check]:
    """The comparison of stored advantages with those of methods, as the only check."""
    from stepcredit.audit.conformance import CONFORMANCE, check_conformance

    return {CONFORMANCE: check_conformance}


def _check_outputs(outputs: Outputs, is_watched: bool) -> None:
    """Refuse what can't be written before the work begins."""
    from stepcredit.data.files.atomic import check_writable, is_streamed

    if outputs.page is not None:
        require("report", "jinja2", "matplotlib")
    for option, path in (("-o", outputs.page), ("--json", outputs.json_file)):
        if path is not None:
            if is_watched and is_streamed(path):
                raise SettingError(f"{option} {path}: --watch writes it again: name a file")
            check_writable(path)
