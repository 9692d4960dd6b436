"""CPU time and peak memory of `stepcredit audit` on a generated log, by part.

    python benchmarks/audit.py                   10,000 responses of 1,000 tokens, a score per step
    python benchmarks/audit.py --signal tokens   a score per token
    python benchmarks/audit.py --check           exit 1 where a bar is missed
    python benchmarks/audit.py --of FILE         of your own file

The whole command runs in a fresh process, and writes the JSON and the HTML page. A part's time
includes what it is the first to compute and others use again, such as the advantages. `rest` is
start-up, the JSON, and the summary. The bar is CPU time: where several processes share a machine,
the time by the clock says little; on an idle machine it is at most the CPU time.

The log is drawn: groups of 8 responses to one prompt, of 500 to 1,500 tokens in steps of 10 to 40
words, with texts, tokens, scores, an outcome, a format reward and the format gate. Some steps are
repeated, and some hold no content.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

RESPONSES, TOKENS, GROUP = 10_000, 1_000, 8
MOST_SECONDS, MOST_GB = {"steps": 60.0, "tokens": 240.0}, 4.0
"""The bars for `RESPONSES` of `TOKENS`: CPU seconds of the whole command by signal, and memory."""
REST, TOTAL = "rest", "total"
WORDS_PER_STEP = (10, 41)
WORDS = 3_000
COMMON = (
    " the",
    " =",
    " +",
    " so",
    " is",
    " of",
    ",",
    " wait",
    " However",
    " \\frac{1}{2}",
    " $x$",
)
REPEATED, EMPTY = 0.02, 0.01
"""Shares of steps that repeat an earlier one, and of steps without content."""


class Clock:
    """CPU seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The function; its time is added to a part."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] += time.process_time() - start

        return wrapped


def measured_here(source: str, folder: str) -> dict[str, Any]:
    """Run the command in this process: seconds by part, by the clock, and peak memory."""
    began, clock = time.perf_counter(), Clock()
    from stepcredit.audit import audit_page, audit_report
    from stepcredit.audit.check_registry import AuditInput, audit_checks
    from stepcredit.audit.logged_batch import LoggedBatch
    from stepcredit.cli import app

    checks = {name: clock.timed(check, name) for name, check in audit_checks().items()}
    LoggedBatch.read = clock.timed(LoggedBatch.read, "reading")  # type: ignore[method-assign]
    AuditInput.of = clock.timed(AuditInput.of, "first run of the methods")  # type: ignore[method-assign]
    audit_report.audit_checks = lambda: checks
    audit_page.audit_page = clock.timed(audit_page.audit_page, "page")
    page, report = (os.path.join(folder, name) for name in ("page.html", "report.json"))
    command = ["audit", source, "-o", page, "--json", report]
    code = app(command, standalone_mode=False)
    if code:
        sys.exit(code)
    total = time.process_time()
    rest = total - sum(clock.seconds.values())
    parts = {**clock.seconds, REST: rest, TOTAL: total}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"cpu_seconds": parts, "clock_seconds": time.perf_counter() - began, "peak_gb": peak}


def measured(source: Path) -> dict[str, Any]:
    """Run the command in a fresh process."""
    code = "import json, sys, audit; print(json.dumps(audit.measured_here(*sys.argv[1:])))"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", code, str(source), folder]
        where = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
        }
        done = subprocess.run(command, capture_output=True, text=True, env=where)
    if done.returncode != 0:
        raise RuntimeError(f"audit ended with {done.returncode}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def vocabulary(rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Words with a space before them, the commonest first, and the cumulated shares of a text."""
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    sizes = rng.integers(1, 10, WORDS).tolist()
    words = [" " + "".join(rng.choice(letters[: 8 + 2 * size], size)) for size in sizes]
    words[::7] = [f" {number}" for number in rng.integers(0, 10_000, len(words[::7])).tolist()]
    words = [*COMMON, *words]
    often = 1 / np.arange(2, len(words) + 2)
    return words, np.cumsum(often / often.sum())


def log_rows(responses: int, tokens: int, signal: str, seed: int = 0) -> Iterator[dict[str, Any]]:
    """The rows of a log.

    Args:
        responses: how many.
        tokens: the mean number of tokens of a response.
        signal: "steps" or "tokens": what has a score.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    words, often = vocabulary(rng)
    for row in range(responses):
        group = row // GROUP
        is_right = bool(rng.random() < 0.2 + 0.6 * (group % 10) / 9)
        sizes = step_sizes(rng, int(rng.integers(tokens // 2, 3 * tokens // 2 + 1)))
        steps = step_texts(rng, sizes, words, often)
        ends = np.cumsum([len(step) for step in steps]) - 1
        texts = [text for step in steps for text in step]
        texts[-3:] = [" answer", " is", f" {row % 100}"]
        keeps_format = bool(rng.random() < 0.95)
        yield {
            "group": f"prompt-{group}",
            "prompt": "".join(words[at] for at in np.searchsorted(often, rng.random(60)).tolist()),
            "text": "".join(texts),
            "tokens": texts,
            "outcome": float(is_right),
            "format": float(keeps_format),
            "format_ok": keeps_format,
            **scores(rng, ends, is_right, signal),
        }


def step_sizes(rng: np.random.Generator, tokens: int) -> list[int]:
    """Words per step, which add up to the tokens; the last step has at least 3."""
    sizes = rng.integers(*WORDS_PER_STEP, tokens // WORDS_PER_STEP[0] + 1)
    whole = sizes[sizes.cumsum() <= tokens - 3].tolist()
    return [*whole, tokens - sum(whole)]


def step_texts(
    rng: np.random.Generator, sizes: list[int], words: list[str], often: np.ndarray
) -> list[list[str]]:
    """The tokens of each step; each step but the last ends in a line break."""
    drawn = [words[at] for at in np.searchsorted(often, rng.random(sum(sizes))).tolist()]
    steps, start = list[list[str]](), 0
    kinds = rng.random(len(sizes)).tolist()
    for size, kind in zip(sizes, kinds, strict=True):
        step = drawn[start : start + size]
        start += size
        if kind < EMPTY:
            step = [" ---"] * (size - 1) + [".\n"]
        elif kind < EMPTY + REPEATED and steps:
            step = list(steps[-1])
        else:
            step[-1] = ".\n"
        steps.append(step)
    return steps


def scores(
    rng: np.random.Generator, ends: np.ndarray, is_right: bool, signal: str
) -> dict[str, Any]:
    """Scores from 0 to 1 as a reward model gives them, higher in right responses."""
    if signal == "tokens":
        count = int(ends[-1]) + 1
        return {"token_scores": rng.beta(4 if is_right else 3, 2, count).round(4).tolist()}
    values = rng.beta(4 if is_right else 3, 2, len(ends)).round(4)
    return {"step_ends": ends.tolist(), "step_scores": values.tolist()}


def write_log(path: Path, responses: int, tokens: int, signal: str) -> None:
    """Write such a log as JSON lines."""
    import orjson

    with path.open("wb") as out:
        out.writelines(orjson.dumps(row) + b"\n" for row in log_rows(responses, tokens, signal))


def missed(found: dict[str, Any], signal: str, scale: float = 1.0) -> list[str]:
    """What is said of figures above a bar.

    Args:
        found: what `measured` gives.
        signal: what has a score.
        scale: tokens of the log, as a part of those that the bars are of.
    """
    seconds, most = found["cpu_seconds"][TOTAL], MOST_SECONDS[signal] * scale
    lines = []
    if seconds > most:
        lines.append(f"{seconds:.1f} CPU seconds, expected at most {most:.1f}")
    if found["peak_gb"] > MOST_GB:
        lines.append(f"{found['peak_gb']:.2f} GB, expected at most {MOST_GB}")
    return lines


def show(found: dict[str, Any]) -> None:
    """The parts, the longest first, and the totals."""
    parts = dict(found["cpu_seconds"])
    total = parts.pop(TOTAL)
    for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
        print(f"{name:28}{seconds:9.2f} s{seconds / total:8.1%}")
    clock, peak = found["clock_seconds"], found["peak_gb"]
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{TOTAL:28}{total:9.2f} s CPU, {clock:.1f} s by the clock (load {load}), {peak:.2f} GB")


def main() -> None:
    """Measure; exit 1 if `--check` is given and a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--signal", choices=sorted(MOST_SECONDS), default="steps")
    parser.add_argument("--of", type=Path, metavar="FILE", help="audit this file; it has no bar")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--quick", action="store_true", help="few short responses, without a bar")
    parser.add_argument("--responses", type=int, default=RESPONSES)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write the generated log here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = chosen.of or chosen.keep or Path(folder) / "log.jsonl"
        if chosen.of is None:
            responses, tokens = (2 * GROUP, 60) if chosen.quick else (chosen.responses, TOKENS)
            write_log(source, responses, tokens, chosen.signal)
        found = measured(source)
    has_bar = not chosen.quick and chosen.of is None
    failed = missed(found, chosen.signal, chosen.responses / RESPONSES) if has_bar else []
    if chosen.json:
        print(json.dumps({**found, "missed": failed}))
    else:
        show(found)
    if chosen.check and failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
