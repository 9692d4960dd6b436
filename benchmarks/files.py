"""Speed, memory and growth of `stepcredit shape` on files; tables, or `--json`.

Each figure is of a fresh process that shapes a generated file with PASS. It shapes two rows first,
so that start-up (above all importing torch) is known; the times are minima of several runs by the
CPU time of the process. Where several processes share a machine, the time by the clock says little.

Rows hold scores, an outcome, a format reward and a text of 4 characters per token. Those with
`all` fields hold a prompt, token ids, token texts, a loss mask and the policy's log-probs too.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

GROUP = 8
TOKENS_PER_STEP = 8
ROWS_PER_CPU_SECOND = {30: 20_000, 500: 5_000}
"""Least rows per CPU second without start-up, by tokens per row, where groups are contiguous."""
SIZES = (10_000, 100_000, 1_000_000)
MOST_GROWTH = 4.5
"""Most times the CPU time or the memory for 4 times the rows; 4 would be exactly linear."""
MOST_GROWTH_CONTIGUOUS = 2.0
"""The same for the memory for small contiguous groups: a few are held at a time, and of all those
that have ended 8 bytes each."""
WORDS = ("Step ", "the ", "sum ", "is\n", "$x$ ", "= ", "12: ", "\\frac{1}{2} ", '"so" ', "½ ")
CHILD = """
import json, resource, sys, time
from stepcredit.cli import app
def run(source):
    clock, cpu = time.perf_counter(), time.process_time()
    code = app(["shape", source, "-o", sys.argv[3]], standalone_mode=False)
    if code:
        sys.exit(code)
    return time.perf_counter() - clock, time.process_time() - cpu
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
run(sys.argv[1])
start_up, before = time.process_time(), peak()
runs = [run(sys.argv[2]) for _ in range(int(sys.argv[4]))]
print(json.dumps([start_up, before, peak(), [min(times) for times in zip(*runs)]]))
"""


@dataclass(frozen=True)
class Case:
    """A kind of file.

    Args:
        rows: number of rows.
        tokens: tokens per row.
        signal: "steps" or "tokens": what has a score.
        order: "contiguous" groups, "interleaved" ones, one "giant" group, or groups of "one" row.
        fields: "scores", or "all".
    """

    rows: int
    tokens: int = 30
    signal: str = "steps"
    order: str = "contiguous"
    fields: str = "scores"

    @property
    def is_contiguous(self) -> bool:
        """Whether groups are small and contiguous."""
        return self.order in ("contiguous", "one")

    def group(self, row: int) -> str:
        """The label of a row."""
        groups = max(1, self.rows // GROUP)
        labels = {"contiguous": row // GROUP, "interleaved": row % groups, "giant": 0, "one": row}
        return f"prompt-{labels[self.order]}"


@dataclass
class Figure:
    """One process: how fast it was, and the peak memory.

    Args:
        case: what was shaped.
        rows_per_second: by the clock, without start-up.
        rows_per_cpu_second: by the CPU time, without start-up.
        rows_per_cpu_second_with_start_up: the same with start-up.
        peak_mb: peak memory.
        more_mb: the part of it beyond the peak of start-up.
    """

    case: Case
    rows_per_second: float
    rows_per_cpu_second: float
    rows_per_cpu_second_with_start_up: float
    peak_mb: float
    more_mb: float

    @property
    def cpu_seconds(self) -> float:
        """CPU time of one run, without start-up."""
        return self.case.rows / self.rows_per_cpu_second


def lines(case: Case) -> Iterator[str]:
    """The rows of a file, as JSON."""
    rng = np.random.default_rng(0)
    for row in range(case.rows):
        fields = {"group": case.group(row)} | _scores(case, rng)
        fields |= {"outcome": float(row % 3 == 0), "format": 1.0, "text": _text(case.tokens, row)}
        if case.fields == "all":
            fields |= _all_fields(case.tokens, row, rng)
        yield json.dumps(fields) + "\n"


def _scores(case: Case, rng: np.random.Generator) -> dict[str, Any]:
    if case.signal == "tokens":
        return {"token_scores": rng.normal(size=case.tokens).tolist()}
    last = case.tokens - 1
    ends = [*range(TOKENS_PER_STEP - 1, last, TOKENS_PER_STEP), last]
    return {"step_ends": ends, "step_scores": rng.random(len(ends)).tolist()}


def _text(tokens: int, row: int) -> str:
    words = "".join(WORDS[row % len(WORDS) :] + WORDS[: row % len(WORDS)])
    return (words * (1 + 4 * tokens // len(words)))[: 4 * tokens]


def _all_fields(tokens: int, row: int, rng: np.random.Generator) -> dict[str, Any]:
    return {
        "prompt": _text(40, row),
        "tokens": [WORDS[(row + at) % len(WORDS)] for at in range(tokens)],
        "token_ids": rng.integers(0, 150_000, tokens).tolist(),
        "loss_mask": [1] * (tokens - 2) + [0] * 2,
        "policy_logprobs": (-rng.random(tokens)).tolist(),
    }


def measured(case: Case, runs: int) -> Figure:
    """Shape such a file in a fresh process, that many times."""
    with tempfile.TemporaryDirectory() as folder:
        small, source, out = (Path(folder) / f"{name}.jsonl" for name in ("small", "in", "out"))
        small.write_text("".join(lines(Case(2, signal=case.signal, order="giant"))))
        with source.open("w") as file:
            file.writelines(lines(case))
        command = [sys.executable, "-c", CHILD, *map(str, (small, source, out, runs))]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"shape ended with {done.returncode}: {done.stderr}")
    start_up, before, peak, (clock, cpu) = json.loads(done.stdout)
    rates = (case.rows / clock, case.rows / cpu, case.rows / (cpu + start_up))
    return Figure(case, *rates, peak_mb=peak, more_mb=peak - before)


def speed_cases(rows: int) -> list[Case]:
    """Files of rows of 30 tokens, and of a fifth as many rows of 500."""
    kinds = (("contiguous", "scores"), ("interleaved", "scores"), ("contiguous", "all"))
    return [
        Case(max(GROUP, rows // share), tokens, signal, *kind)
        for signal in ("steps", "tokens")
        for tokens, share in ((30, 1), (500, 5))
        for kind in kinds
    ]


def too_slow(figure: Figure) -> str | None:
    """What is said of a rate below the bar; None where there is no bar, or it is reached."""
    case, least = figure.case, ROWS_PER_CPU_SECOND[figure.case.tokens]
    has_bar = (case.order, case.fields) == ("contiguous", "scores")
    if not has_bar or figure.rows_per_cpu_second >= least:
        return None
    what = f"{case.signal}, {case.tokens} tokens"
    return f"{what}: {figure.rows_per_cpu_second:,.0f} rows per CPU second, expected {least:,}"


def growth(small: Figure, large: Figure) -> tuple[float, float]:
    """How many times the CPU time and the memory beyond start-up that 4 times the rows take."""
    per_4 = math.log(4) / math.log(large.case.rows / small.case.rows)
    time = large.cpu_seconds / small.cpu_seconds
    memory = max(1.0, large.more_mb) / max(1.0, small.more_mb)
    return time**per_4, memory**per_4


def grows_too_fast(small: Figure, large: Figure) -> list[str]:
    """What is said of a growth above the bar."""
    time, memory = growth(small, large)
    most = MOST_GROWTH_CONTIGUOUS if large.case.is_contiguous else MOST_GROWTH
    found = []
    for what, factor, bar in (("time", time, MOST_GROWTH), ("memory", memory, most)):
        if factor > bar:
            where = f"{large.case.order}, {small.case.rows:,} to {large.case.rows:,} rows"
            found.append(f"{where}: {factor:.2f} times the {what} per 4 times, expected {bar}")
    return found


def show_speed(figure: Figure, *, first: bool) -> None:
    """One line of the table of speeds, below its headings."""
    case = figure.case
    headings = ("signal", "tokens", "order", "fields", "rows", "per CPU s", "with start-up")
    rates = (figure.rows_per_cpu_second, figure.rows_per_cpu_second_with_start_up)
    row = (case.signal, case.tokens, case.order, case.fields, *_counts(case.rows, *rates))
    tail = (*_counts(figure.rows_per_second), f"{figure.peak_mb:.0f}", f"+{figure.more_mb:.0f}")
    heads = [(*headings, "per s (clock)", "peak MB", "+MB")] * first
    for cells in [*heads, (*row, *tail)]:
        print("{:7}{:>7}  {:12}{:7}{:>9}{:>11}{:>14}{:>14}{:>9}{:>6}".format(*cells), flush=True)


def show_growth(figure: Figure, before: Figure | None) -> None:
    """One line of the table of growth."""
    case = figure.case
    factors = ("", "") if before is None else map("{:.2f}".format, growth(before, figure))
    rate, rows = _counts(figure.rows_per_cpu_second, case.rows)
    cells = (case.order, rows, rate, f"{figure.more_mb:.0f}", *factors)
    print("{:12}{:>11}{:>11}{:>8}{:>12}{:>14}".format(*cells), flush=True)


def _counts(*numbers: float) -> list[str]:
    return [f"{number:,.0f}" for number in numbers]


def speeds(rows: int, runs: int, *, silent: bool) -> tuple[list[Figure], list[str]]:
    """The figures of all kinds of rows, and what is below a bar."""
    figures: list[Figure] = []
    for case in speed_cases(rows):
        figures.append(measured(case, runs))
        if not silent:
            show_speed(figures[-1], first=len(figures) == 1)
    return figures, [line for line in map(too_slow, figures) if line is not None]


def growths(runs: int, *, silent: bool) -> tuple[list[Figure], list[str]]:
    """The figures of longer and longer files, and what is above a bar."""
    figures: list[Figure] = []
    missed: list[str] = []
    headings = ("order", "rows", "per CPU s", "+MB", "time per 4x", "memory per 4x")
    if not silent:
        print("{:12}{:>11}{:>11}{:>8}{:>12}{:>14}".format(*headings), flush=True)
    for order in ("contiguous", "one", "giant", "interleaved"):
        before = None
        for size in SIZES:
            figures.append(measured(Case(size, order=order), runs))
            if before is not None:
                missed += grows_too_fast(before, figures[-1])
            if not silent:
                show_growth(figures[-1], before)
            before = figures[-1]
    return figures, missed


def main() -> None:
    """Measure; exit 1 if `--check` is given and a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--growth", action="store_true", help="also files of 10^4 to 10^6 rows")
    parser.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of 30 tokens per file")
    parser.add_argument("--runs", type=int, default=5, help="runs of which the best one counts")
    chosen = parser.parse_args()
    figures, missed = speeds(chosen.rows, chosen.runs, silent=chosen.json)
    found = {"files": [asdict(figure) for figure in figures]}
    if chosen.growth:
        figures, more = growths(min(3, chosen.runs), silent=chosen.json)
        found["growth"] = [asdict(figure) for figure in figures]
        missed += more
    if chosen.json:
        print(json.dumps({**found, "missed": missed}))
    elif chosen.check:
        print("\n".join(missed or ["every bar is reached"]))
    sys.exit(bool(missed) and chosen.check)


if __name__ == "__main__":
    main()
