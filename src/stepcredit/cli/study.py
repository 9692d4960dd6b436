"""`stepcredit study`: methods x signals x seeds, one store of results, one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepcredit.cli.output import CommandApp, say
from stepcredit.errors import StepCreditError

if TYPE_CHECKING:
    from stepcredit.study.study_cells import Cell

Name = Annotated[
    str, typer.Argument(metavar="NAME|CONFIG.yaml", help="A preset, or a file of your own.")
]
Store = Annotated[Path, typer.Option(help="The file of results.")]
Tuned = Annotated[Path, typer.Option(help="The chosen settings, for presets that use them.")]
CacheDir = Annotated[Path, typer.Option(help="Folder of the cached warm starts and teachers.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Runs at the same time; default: one per core, on a GPU one alone."),
]
Slice = Annotated[bool, typer.Option("--slice", help="Only the first seeds of each block.")]
Budget = Annotated[
    float | None, typer.Option(metavar="HOURS", help="Start no run that would end later.")
]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where the policies learn, cpu or cuda; default: as the preset says, or cpu."
    ),
]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Run again what failed before.")]
STORE, TUNED = Path("evidence/study.sqlite"), Path("evidence/tuned.yaml")
CLAIMS, CACHE = Path("evidence/claims.yaml"), Path("cache/warmstart")

app = CommandApp(
    name="study",
    help="Run methods x signals x seeds into one store, and make the page of results from it.",
    no_args_is_help=True,
)


@app.command("run")
def study_run_command(
    name: Name,
    *,
    store: Store = STORE,
    tuned: Tuned = TUNED,
    cache_dir: CacheDir = CACHE,
    workers: Workers = None,
    slice: Slice = False,
    budget: Budget = None,
    device: Device = None,
    retry_failed: Retry = False,
) -> None:
    """Do the runs of a preset that the store does not have yet; Ctrl-C or a kill loses no other."""
    from stepcredit.study.study_presets import find_preset

    preset = find_preset(name, tuned).on_device(device)
    chosen = preset.slice() if slice else preset
    options = _options(workers, budget, retry_failed, cache_dir)
    _run(preset.name, preset.cells(), chosen.cells(), store, options)


@app.command("tune")
def study_tune_command(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The tuning preset.")] = "tuning",
    *,
    store: Store = STORE,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = TUNED,
    cache_dir: CacheDir = CACHE,
    workers: Workers = None,
    budget: Budget = None,
    device: Device = None,
    retry_failed: Retry = False,
) -> None:
    """Run the tuning preset in two rounds, choose each method's settings, and write them."""
    from stepcredit.study.study_data import StudyData
    from stepcredit.study.study_presets import find_preset
    from stepcredit.study.study_store import StudyStore
    from stepcredit.study.tuning import both_rounds, first_round, write_tuned

    def found() -> StudyData:
        with StudyStore(store) as opened:
            return StudyData(opened)

    preset = find_preset(name).on_device(device)
    if preset.role != "tuning":
        raise StepCreditError("is no tuning preset", field=name)
    options, cells = _options(workers, budget, retry_failed, cache_dir), first_round(preset)
    _run(preset.name, cells, cells, store, options)
    cells = both_rounds(preset, found())
    _run(preset.name, cells, cells, store, options)
    chosen = write_tuned(preset, found(), output)
    for task, methods in chosen.items():
        for candidate in methods.values():
            say(f"{task}: {candidate.arm.label}: pass@1 {candidate.mean:.3f}")
    say(f"the settings are in {output}")


@app.command("list")
def study_list_command(
    *, store: Store = STORE, tuned: Tuned = TUNED, device: Device = None
) -> None:
    """List the presets: runs, runs that are done, and hours that the others take on all cores."""
    from rich.console import Console

    from stepcredit.study.budget import study_table

    Console().print(study_table(store, tuned, device))


@app.command("report")
def study_report_command(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The file of results.")] = STORE,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page, one HTML file.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="The page as Markdown; its pictures go to figures/evidence beside it."),
    ] = None,
    claims: Annotated[Path, typer.Option(help="The claims file.")] = CLAIMS,
    anchor: Annotated[
        Path | None,
        typer.Option(help="Runs on a real model, of examples/smollm2_anchor.py."),
    ] = None,
) -> None:
    """Write the page: claims with their verdicts, tables, curves, forests, costs."""
    from stepcredit.data.files.atomic import check_writable
    from stepcredit.data.files.jsonl import file_errors
    from stepcredit.requires import require
    from stepcredit.study.anchor import read_anchor
    from stepcredit.study.claims import read_claims_file
    from stepcredit.study.page_pictures import FOLDER, write_pictures
    from stepcredit.study.study_data import StudyData
    from stepcredit.study.study_page import html_page, markdown_page
    from stepcredit.study.study_store import StudyStore

    require("study", "jinja2", "matplotlib", "scipy", "statsmodels")
    if output is None and markdown is None:
        raise StepCreditError("name a file with --output or --markdown")
    for page_path in filter(None, (output, markdown)):
        check_writable(page_path)
    written = read_claims_file(claims)
    anchored = None if anchor is None else read_anchor(anchor)
    with StudyStore(store) as opened:
        data = StudyData(opened)
    pages = ((output, html_page), (markdown, markdown_page))
    for path, page in pages:
        if path is not None:
            with file_errors(str(path)):
                path.write_text(page(data, written, anchored))
            say(f"written: {path}")
    if markdown is not None:
        say(f"written: {len(write_pictures(data, markdown.parent / FOLDER))} pictures")


@app.command("check")
def study_check_command(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The new results.")],
    committed: Annotated[Path, typer.Argument(metavar="COMMITTED", help="The results before.")],
) -> None:
    """Check that new runs agree with those before within their intervals."""
    from stepcredit.study.agreement_check import check_agreement
    from stepcredit.study.study_data import StudyData
    from stepcredit.study.study_store import StudyStore

    with StudyStore(store) as mine, StudyStore(committed) as theirs:
        checked = check_agreement(StudyData(mine), StudyData(theirs))
    for line in checked.lines:
        typer.echo(line)
    if not checked.agrees:
        raise StepCreditError("the new runs do not agree with those before", field=str(store))


@app.command("merge")
def study_merge_command(
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="The results to take over.")],
    *,
    store: Store = STORE,
) -> None:
    """Take over the runs of another store, such as those of another machine."""
    from stepcredit.study.study_store import StudyStore

    with StudyStore(store, create=True) as mine:
        say(f"{mine.merge(other)} runs are new in {store}")


def _options(workers: int | None, budget: float | None, retry: bool, cache_dir: Path) -> Any:
    from stepcredit.study.study_runner import RunOptions

    return RunOptions(workers, budget, retry, cache_dir)


def _run(
    name: str, planned: Sequence[Cell], chosen: Sequence[Cell], path: Path, options: Any
) -> None:
    """Do those of a preset's planned runs that were chosen, and say what became of them."""
    from rich.console import Console

    from stepcredit.requires import require
    from stepcredit.study.study_runner import run_study
    from stepcredit.study.study_store import StudyStore

    require("study", "transformers", "trl", "datasets", "filelock", "yaml")
    with StudyStore(path, create=True) as store:
        try:
            tally = run_study(name, chosen, store, options, Console(stderr=True), planned)
        except KeyboardInterrupt:
            say("interrupted: every finished run is in the store; the same command goes on")
            raise
    say(f"{name}: {tally.there} of {tally.total} runs were done before, {tally.done} now")
    if tally.waiting:
        say(f"{tally.waiting} runs are left; the same command goes on with them")
    for key, error in tally.failed.items():
        say(f"run {key} failed: {error}")
    if tally.failed:
        raise typer.Exit(1)
