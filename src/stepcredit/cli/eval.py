"""`stepcredit eval`: samples a model on benchmarks, and prints pass@k and other figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import stepcredit as sc
from stepcredit.cli.options import Imports, import_modules, repeated, settings_of
from stepcredit.cli.output import say
from stepcredit.cli.progress import counting_bar
from stepcredit.cli.served_counts import say_served
from stepcredit.errors import SettingError
from stepcredit.evals.eval_tasks import EVAL_TASKS

if TYPE_CHECKING:
    from stepcredit.evals.evaluation_run import SampleCounts
    from stepcredit.evals.problems import EvalProblem
    from stepcredit.evals.sampler import Sampler, SamplingSettings
    from stepcredit.evals.task_summary import TaskSummary

BACKENDS = ("transformers", "vllm", "server")
SAMPLING, MODEL, SERVER = "Sampling", "Model", "Server"
SIGNAL = "Best of n by a process signal"


def _option(help: str, metavar: str | None = None, panel: str | None = None) -> Any:
    return typer.Option(metavar=metavar, help=help, rich_help_panel=panel, show_default=True)


NAMES = ", ".join(EVAL_TASKS)
Tasks = Annotated[str, _option(f"Benchmarks, with commas between them: {NAMES}.", "NAMES")]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="OUT", help="The file of samples, a .jsonl file."),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="FILE", help="Sample nothing: print the figures of FILE."),
]
Files = Annotated[
    list[str], repeated("--file", "Read a task's rows from a local file.", "TASK=PATH")
]
Limit = Annotated[int | None, _option("Only the first problems of each task.", "N")]
Ks = Annotated[
    str | None, _option("The k of pass@k, with commas between them. Default: n.", "NUMBERS")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")]

Samples = Annotated[
    int, typer.Option("--samples", "-n", help="Samples per problem.", rich_help_panel=SAMPLING)
]
Temperature = Annotated[float, _option("0 takes the most likely token.", panel=SAMPLING)]
TopP = Annotated[float, _option("Probability of the tokens drawn from.", panel=SAMPLING)]
MaxTokens = Annotated[int, _option("Most tokens of a response.", panel=SAMPLING)]
Seed = Annotated[int, _option("Seed of the draws.", panel=SAMPLING)]
System = Annotated[str | None, _option("The system turn.", "TEXT", SAMPLING)]
Templates = Annotated[
    list[str],
    repeated(
        "--template",
        "The user's turn of a task, with {prompt} for the problem; @PATH reads it from a file.",
        "TASK=TEXT",
        SAMPLING,
    ),
]
Chat = Annotated[
    bool | None,
    typer.Option(
        "--chat-template/--no-chat-template",
        help="Put the turns into the model's chat template. Default: if it has one.",
        rich_help_panel=SAMPLING,
        show_default=False,
    ),
]

Model = Annotated[
    str | None, _option("A folder, a name on the Hub, or the name on a server.", "M", MODEL)
]
Backend = Annotated[str, _option("transformers, vllm or server.", "NAME", MODEL)]
Tokenizer = Annotated[
    str | None, _option("The model's tokenizer, where it is not beside the model.", "PATH", MODEL)
]
Device = Annotated[str, _option("Device of transformers.", panel=MODEL)]
Dtype = Annotated[str, _option("Type of the weights of transformers.", panel=MODEL)]
TokensPerBatch = Annotated[
    int | None, _option("Most tokens of a batch of transformers. Default: 65536.", "N", MODEL)
]
Engine = Annotated[
    list[str], repeated("--engine", "An argument of vLLM's engine.", "FIELD=VALUE", MODEL)
]

Urls = Annotated[
    list[str],
    repeated("--url", "Address of a server of the model, without /v1.", "URL", SERVER),
]
Concurrency = Annotated[int, _option("Requests at the same time.", panel=SERVER)]
Timeout = Annotated[float, _option("Seconds for one request.", panel=SERVER)]
Attempts = Annotated[int, _option("How often a request is sent.", panel=SERVER)]
ApiKeyEnv = Annotated[
    str | None, _option("Environment variable that holds the API key.", "NAME", SERVER)
]

Signal = Annotated[
    str | None, _option("A signal, as `stepcredit signals` lists them.", "NAME", SIGNAL)
]
SignalSettings = Annotated[
    list[str], repeated("--set", "A field of the signal.", "FIELD=VALUE", SIGNAL)
]
Split = Annotated[str | None, _option("How texts are cut into steps.", "NAME", SIGNAL)]


@dataclass(frozen=True)
class ModelPlace:
    """Where the model is, as the options name it."""

    backend: str
    model: str | None
    tokenizer: str | None
    device: str
    dtype: str
    tokens_per_batch: int | None
    engine: list[str]
    server: dict[str, Any]


def eval_command(
    *,
    tasks: Tasks = "",
    output: Output = None,
    source: From = None,
    files: Files,
    limit: Limit = None,
    k: Ks = None,
    as_json: AsJson = False,
    model: Model = None,
    backend: Backend = "transformers",
    tokenizer: Tokenizer = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    tokens_per_batch: TokensPerBatch = None,
    engine: Engine,
    samples: Samples = 1,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_tokens: MaxTokens = 2048,
    seed: Seed = 0,
    system: System = None,
    templates: Templates,
    chat: Chat = None,
    urls: Urls,
    concurrency: Concurrency = 32,
    timeout: Timeout = 600.0,
    attempts: Attempts = 6,
    api_key_env: ApiKeyEnv = None,
    signal: Signal = None,
    settings: SignalSettings,
    split: Split = None,
    imports: Imports,
) -> None:
    """Sample a model on benchmarks; print pass@k, majority votes, lengths, with intervals.

    Each sample is a row of the rollout file OUT as soon as it is graded. After a stop, the same
    command continues where it stopped; with a larger -n or more tasks it adds what is missing.
    """
    import_modules(imports)
    ks = _numbers(k)
    if source is not None:
        report(source, ks, as_json=as_json)
        return
    drawing: dict[str, Any] = {
        "samples": samples,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
        "system": system,
        "chat": chat,
    }
    server = {
        "url": urls,
        "concurrency": concurrency,
        "timeout": timeout,
        "attempts": attempts,
        "api_key_env": api_key_env,
    }
    options = (model, tokenizer, device, dtype, tokens_per_batch, engine, server)
    place = ModelPlace(backend, *options)
    out = _needed(output, "-o", "the file of samples")
    judge = None if signal is None else step_signal(signal, settings)
    sampling = sampling_settings(templates, drawing, ks)
    problems = eval_problems(tasks, files, limit)
    sample_into(out, build_sampler(place, sampling), problems)
    scored = out if judge is None else score_samples(out, judge, tokenizer, split)
    report(scored, ks, as_json=as_json)


def report(path: str, ks: Sequence[int], *, as_json: bool) -> None:
    """Print the figures of a file of samples, and write them beside it as JSON."""
    from stepcredit.cli.eval_table import print_table
    from stepcredit.data.files.atomic import replacing
    from stepcredit.evals.task_summary import read_samples, summarize_task

    found = read_samples(path)
    with option_errors():
        summaries = [summarize_task(each, ks) for each in found]
    whole = {
        "file": path,
        "settings": {each.task.name: each.settings for each in found},
        "tasks": [summary.as_dict() for summary in summaries],
    }
    text = json.dumps(whole, indent=2, ensure_ascii=False)
    with replacing(summary_path(path)) as out:
        out.write(f"{text}\n".encode())
    if as_json:
        typer.echo(text)
    else:
        print_table(summaries)
    _say_notes(summaries)


def _say_notes(summaries: Sequence[TaskSummary]) -> None:
    for summary in summaries:
        for note in summary.notes:
            say(f"note: {note}")


def summary_path(path: str) -> Path:
    """The file of figures beside a file of samples.

    Example:
        >>> summary_path("runs/samples.jsonl").name
        'samples.summary.json'
    """
    name = Path(path).name
    for suffix in (".gz", ".jsonl", ".parquet"):
        name = name.removesuffix(suffix)
    return Path(path).with_name(f"{name}.summary.json")


def sampling_settings(
    templates: Sequence[str], drawing: dict[str, Any], ks: Sequence[int]
) -> SamplingSettings:
    """How samples are drawn, as the options say.

    Raises:
        SettingError: names the option at fault.
    """
    from stepcredit.evals.sampler import SamplingSettings
    from stepcredit.evals.task_summary import check_ks

    with option_errors():
        check_ks(ks, drawing["samples"])
        texts = {task: _template(text) for task, text in _by_task(templates, "--template").items()}
        return SamplingSettings(templates=texts, **drawing)


def _template(text: str) -> str:
    if not text.startswith("@"):
        return text
    from stepcredit.data.files.jsonl import file_errors

    with file_errors(text[1:]):
        return Path(text[1:]).read_text(encoding="utf-8")


def _by_task(texts: Sequence[str], option: str) -> dict[str, str]:
    """The TASK=VALUE of an option that is given once per task."""
    from stepcredit.evals.eval_tasks import named_tasks

    found: dict[str, str] = {}
    for text in texts:
        task, equals, value = text.partition("=")
        if not equals or not value:
            raise SettingError("expected TASK=VALUE", field=f"{option} {text}")
        try:
            named_tasks([*found, task])
        except SettingError as error:
            raise error.at(under=option) from None
        found[task] = value
    return found


def eval_problems(tasks: str, files: Sequence[str], limit: int | None) -> list[EvalProblem]:
    """The problems of the tasks that `--tasks`, `--file` and `--limit` name.

    Raises:
        SettingError: names the option at fault.
    """
    from stepcredit.evals.eval_tasks import named_tasks
    from stepcredit.evals.problems import load_problems

    try:
        chosen = named_tasks([name.strip() for name in tasks.split(",") if name.strip()])
    except SettingError as error:
        raise error.at(under="--tasks") from None
    paths = _by_task(files, "--file")
    unused = paths.keys() - {task.name for task in chosen}
    if unused:
        raise SettingError("is not among --tasks", field=f"--file {min(unused)}")
    _check_count(limit, "--limit")
    return [
        problem for task in chosen for problem in load_problems(task, paths.get(task.name), limit)
    ]


def build_sampler(place: ModelPlace, settings: SamplingSettings) -> Sampler:
    """The backend that `--backend` and the options of the model name.

    Raises:
        SettingError: names the option at fault.
        MissingExtra: a package that the backend needs is not installed.
    """
    _check_count(place.tokens_per_batch, "--tokens-per-batch")
    model = _needed(place.model, "--model", "a folder, a name on the Hub, or on the server")
    if place.backend not in BACKENDS:
        expected = ", ".join(BACKENDS)
        raise SettingError(f"expected one of {expected}", field=f"--backend {place.backend}")
    with option_errors():
        if place.backend == "server":
            return _server_sampler(model, place, settings)
        if place.backend == "vllm":
            return _vllm_sampler(model, place, settings)
        return _transformers_sampler(model, place, settings)


def _transformers_sampler(model: str, place: ModelPlace, settings: SamplingSettings) -> Sampler:
    from stepcredit.evals.transformers_sampler import TOKENS_PER_BATCH, TransformersSampler

    return TransformersSampler(
        model,
        settings,
        tokenizer=place.tokenizer,
        device=place.device,
        dtype=place.dtype,
        tokens_per_batch=place.tokens_per_batch or TOKENS_PER_BATCH,
    )


def _vllm_sampler(model: str, place: ModelPlace, settings: SamplingSettings) -> Sampler:
    from stepcredit.evals.vllm_sampler import VLLMSampler

    engine = settings_of(place.engine, "--engine")
    if place.tokenizer is not None:
        engine["tokenizer"] = place.tokenizer
    return VLLMSampler(model, settings, engine)


def _server_sampler(model: str, place: ModelPlace, settings: SamplingSettings) -> Sampler:
    from stepcredit.cli.score import loaded_tokenizer
    from stepcredit.evals.server_sampler import Connection, ServerSampler

    _needed(place.server["url"], "--url", "the server's address")
    tokenizer = None if place.tokenizer is None else loaded_tokenizer(place.tokenizer)
    return ServerSampler(model, settings, Connection(**place.server), tokenizer)


def sample_into(path: str, sampler: Sampler, problems: Sequence[EvalProblem]) -> None:
    """Draw the samples that a file lacks, with a progress bar; a stop is said in one line."""
    from stepcredit.evals.evaluation_run import SampleCounts, sample_problems

    counts = SampleCounts(0)
    try:
        with counting_bar("sampling") as progress:
            sample_problems(sampler, problems, path, progress=progress, counts=counts)
        say_served("sampling", sampler.server_counts)
    except BaseException:
        if counts.drawn:
            say(f"{_kept(counts)} are kept in {path}: run the same command to continue")
        raise
    if counts.kept:
        say(f"{path}: {counts.kept} samples of an earlier run, {counts.drawn} of this one")
    _say_tally(problems)


def _kept(counts: SampleCounts) -> str:
    return f"{counts.kept + counts.drawn} of {counts.wanted} samples"


def _say_tally(problems: Sequence[EvalProblem]) -> None:
    from stepcredit.evals.sample_grading import grading_tally

    for name, tally in grading_tally(list(dict.fromkeys(p.task for p in problems))).items():
        if tally["timed out"]:
            say(f"note: {name}: {tally['timed out']} answers took too long to grade: wrong")


def step_signal(name: str, settings: list[str]) -> sc.Signal:
    """The process signal that `--signal` and `--set` name.

    Raises:
        SettingError: names the option at fault, or says that the signal scores tokens.
    """
    from stepcredit.cli.score import named_signal

    made = named_signal(name, settings)
    if made.grain != "steps":
        reason = "scores tokens; best of n needs scores of steps"
        raise SettingError(reason, field=f"--signal {name}")
    return made


def score_samples(path: str, signal: sc.Signal, tokenizer: str | None, split: str | None) -> str:
    """Write a copy of the samples with the scores of a process signal; return its name."""
    from stepcredit.cli.score import row_reader, with_kept_scores
    from stepcredit.signals.score_file import Scoring, score_file

    reader = row_reader(tokenizer, split, "prompt", chat=False)
    scored = str(Path(path).with_suffix(".scored.jsonl"))
    with (
        with_kept_scores(signal, scored, None) as cached,
        counting_bar(f"scoring with {signal.name}") as progress,
    ):
        scoring = replace(Scoring(signal, reader), signal=cached)
        score_file(path, scored, scoring, progress=progress)
    return scored


@contextmanager
def option_errors() -> Iterator[None]:
    """A block in which the field of a setting is named as the option that sets it.

    Example:
        >>> with option_errors():
        ...     raise SettingError("expected a number", field="max_tokens")
        Traceback (most recent call last):
        ...
        stepcredit.errors.SettingError: --max-tokens: expected a number
    """
    try:
        yield
    except SettingError as error:
        field = error.field or ""
        if field.startswith("--"):
            raise
        option = f"--{field.replace('_', '-')}" if field else None
        raise error.at(field=option) from error.__cause__


def _needed(value: str | None, option: str, what: str) -> str:
    if value is None:
        raise SettingError(f"needed: {what}", field=option)
    return value


def _check_count(value: int | None, option: str) -> None:
    if value is not None and value < 1:
        raise SettingError(f"expected at least 1, got {value}", field=option)


def _numbers(text: str | None) -> list[int]:
    """Whole numbers with commas between them."""
    parts = [] if text is None else text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise SettingError(f"expected whole numbers with commas, got {text!r}", field="--k")
    return sorted({int(part) for part in parts})
