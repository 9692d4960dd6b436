"""`stepcredit attack`: what edits of responses earn from a signal, and under methods."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepcredit.cli.convert import reading_logs
from stepcredit.cli.options import Imports, Input, import_modules, named_variant
from stepcredit.cli.output import say
from stepcredit.cli.progress import counting_bar
from stepcredit.cli.score import (
    Chat,
    Maps,
    Name,
    Question,
    Settings,
    Split,
    Tokenizer,
    map_scores,
    named_signal,
    row_reader,
    with_kept_scores,
)
from stepcredit.cli.served_counts import say_served
from stepcredit.errors import SettingError
from stepcredit.requires import require

if TYPE_CHECKING:
    from stepcredit.audit.attack.attack_plan import AttackPlan
    from stepcredit.audit.attack.attacked_rows import AttackedFile
    from stepcredit.audit.attack.edits import Edit

METHODS = ("pass", "pure", "pass-min")
Methods = Annotated[
    list[str],
    typer.Option(
        "--method",
        metavar="NAME",
        help="A method whose advantages are compared; NAME:FIELD=VALUE,FIELD=VALUE sets fields. "
        "May be repeated. Default: pass, pure and pass-min.",
        show_default=False,
        default_factory=list,
    ),
]
EditNames = Annotated[
    str,
    typer.Option(
        "--edits",
        metavar="A,B",
        help="Names of the edits, with commas between them. Default: all.",
        show_default=False,
    ),
]
Limit = Annotated[
    int,
    typer.Option(
        min=1,
        help="About how many responses are edited: groups are drawn and taken whole until the "
        "next one would pass this number.",
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of the drawn groups, steps and texts.")]
CacheFile = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="PATH",
        help="File that keeps the scores for later runs; `stepcredit score` can share it.",
        show_default=False,
    ),
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Also write the report as JSON.", show_default=False
    ),
]
CostOnly = Annotated[
    bool, typer.Option("--cost-only", help="Print the cost and stop.", show_default=False)
]


def attack_command(
    source: Input,
    name: Name,
    *,
    settings: Settings,
    maps: Maps,
    methods: Methods,
    edits: EditNames = "",
    limit: Limit = 200,
    seed: Seed = 0,
    tokenizer: Tokenizer = None,
    split: Split = None,
    question: Question = "prompt",
    chat: Chat = False,
    cache: CacheFile = None,
    json_file: JsonFile = None,
    cost_only: CostOnly = False,
    imports: Imports,
) -> None:
    """Edit the responses, score them again, and print what each edit earns.

    No edit makes a response better, so none should earn credit. The edited response stands in its
    original's place in its group. The cost is printed before anything is scored.
    """
    from stepcredit.audit.attack.attack_run import attack_cost, check_attackable, run_attack
    from stepcredit.audit.attack.attacked_rows import read_attacked
    from stepcredit.cli.attack_table import print_attack
    from stepcredit.data.files.atomic import write_json

    require("report", "scipy")  # intervals, after all is scored
    import_modules(imports)
    signal = named_signal(name, settings)
    estimators = {text: named_variant(text, f"--method {text}") for text in methods or METHODS}
    chosen = _named_edits(edits)
    reader = row_reader(tokenizer, split, question, chat=chat)
    try:
        check_attackable(signal, reader.tokenizer)
    except SettingError as error:
        raise SettingError(f"--{error.field}: {error.reason}") from None
    with reading_logs():
        file = read_attacked(source, reader)
    plan = _plan(file, chosen, limit, seed)
    cost = attack_cost(plan)
    say(f"{name}: {cost}")
    if cost_only:
        return
    output = "-" if json_file is None else str(json_file)
    with (
        with_kept_scores(signal, output, cache) as cached,
        counting_bar(f"attacking {name}") as bar,
    ):
        mapped = map_scores(cached, maps)
        progress = None if bar is None else lambda done: bar(done, len(plan.responses))
        report = replace(run_attack(plan, mapped, estimators, progress=progress), signal=name)
        if json_file is not None:
            write_json(json_file, report.as_dict())
    say_served(name, signal.served_statistics())
    print_attack(report, name)


def _named_edits(text: str) -> list[Edit]:
    from stepcredit.audit.attack.edits import edits_named

    try:
        return edits_named([name for name in text.split(",") if name])
    except SettingError as error:
        raise SettingError(f"--edits: {error.reason}") from None


def _plan(file: AttackedFile, edits: list[Edit], limit: int, seed: int) -> AttackPlan:
    from stepcredit.audit.attack.attack_plan import EditSettings, plan_attack

    return plan_attack(file.rows, EditSettings(edits, file.cutter, seed=seed), limit)
