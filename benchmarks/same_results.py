"""Whether another checkout computes the same: both run on the same inputs, bits are compared.

    python benchmarks/same_results.py --beside PATH            1,000 random batches, bits equal
    python benchmarks/same_results.py --beside PATH --ulp 1    float32 units of the group's largest

`compared_results.py` says what is computed. Each checkout runs in a process of its own, with the
inputs of this checkout. Arrays are compared with their types and shapes, texts and errors as they
stand. The distance of two arrays is the largest |a - b|, in float32's units of the last place (ulp)
of the largest number in the group: 2^-23 times that number. What the other checkout does not know
by name, such as a method that is new here, is counted apart. The exit status is 1 where a result
differs by more than `--ulp`; with 0, where any bit differs.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
Result = tuple[Any, np.ndarray | None]
"""A value, an array or a text, and the group of each number of an array."""
UNKNOWN = re.compile(r"MethodError: (\w+: )?(unknown (method|chunker) |[\w-]+ has no such field)")
SHOWN = 5
"""Differences of each part that are printed."""


@dataclass
class Compared:
    """The comparison of one part.

    Args:
        results: how many results were compared.
        new: how many were left out, because the other checkout does not know the method,
            its field or its chunker.
        distances: {name of a result that differs: its distance in ulp}; infinite for a text, or
            for arrays of different types, shapes or places of NaN.
        lines: what differs, one line each.
    """

    results: int = 0
    new: int = 0
    distances: dict[str, float] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)

    @property
    def largest(self) -> float:
        """The largest distance."""
        return max(self.distances.values(), default=0.0)


def results_of(checkout: Path, batches: int, folder: Path) -> dict[str, dict[str, Result]]:
    """What a checkout computes, in a process of its own."""
    source, out = checkout.resolve() / "src", folder / "results.pickle"
    settings = {
        "PYTHONPATH": f"{source}{os.pathsep}{ROOT}",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, str(ROOT / "benchmarks" / "compared_results.py"), str(out)]
    subprocess.run(
        [*command, "--batches", str(batches)], env=os.environ | settings, cwd=folder, check=True
    )
    found = pickle.loads(out.read_bytes())
    if not Path(found["package"]).is_relative_to(source):
        raise SystemExit(f"{found['package']} was imported, not the package of {source}")
    return found["results"]


def compare(own: dict[str, Result], other: dict[str, Result]) -> Compared:
    """The results of one part."""
    unknown = {call_of(name) for name, result in other.items() if is_unknown_name(result[0])}
    both = sorted(own.keys() | other.keys())
    names = [name for name in both if call_of(name) not in unknown]
    compared = Compared(len(names), new=len(both) - len(names))
    for name in names:
        if name not in own or name not in other:
            where = "beside" if name in other else "here"
            compared.distances[name], compared.lines[name] = np.inf, f"is {where} alone"
        elif not is_same(own[name][0], other[name][0]):
            far, line = difference(own[name], other[name])
            compared.distances[name], compared.lines[name] = far, line
    return compared


def call_of(name: str) -> str:
    """The call that a result is of.

    >>> call_of("mix, batch 3: stage first: outcome")
    'mix, batch 3'
    """
    return name.partition(": ")[0]


def is_unknown_name(value: Any) -> bool:
    """Whether a result is the refusal of a name that the checkout does not know."""
    return isinstance(value, str) and bool(UNKNOWN.match(value))


def is_same(one: Any, other: Any) -> bool:
    """Whether two texts are equal, or two arrays in type, shape and every bit."""
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str) and one == other
    return is_alike(one, other) and one.tobytes() == other.tobytes()


def is_alike(one: Any, other: Any) -> bool:
    """Whether both are arrays of the same type and shape."""
    if isinstance(one, str) or isinstance(other, str):
        return False
    return one.dtype == other.dtype and one.shape == other.shape


def difference(one: Result, other: Result) -> tuple[float, str]:
    """The distance of two results, and where they differ most."""
    a, b = one[0], other[0]
    if not is_alike(a, b) or a.dtype.kind != "f" or not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf, f"here {short(a)}, beside {short(b)}"
    far = distances(a, b, one[1])
    at = int(far.argmax())
    values = f"here {a.ravel()[at]:.9g}, beside {b.ravel()[at]:.9g}"
    return float(far[at]), f"{far[at]:.3g} ulp at {at} of {far.size}: {values}"


def distances(a: np.ndarray, b: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Each |a - b| over 2^-23 of the largest |a| or |b| of the group."""
    groups = np.zeros(a.size, np.int64) if groups is None else groups
    a, b = (np.nan_to_num(table.ravel().astype(np.float64)) for table in (a, b))
    largest = np.zeros(int(groups.max(initial=0)) + 1)
    np.maximum.at(largest, groups, np.maximum(np.abs(a), np.abs(b)))
    unit = np.where(largest > 0, largest, 1.0) * 2.0**-23
    return np.abs(a - b) / unit[groups]


def short(value: Any) -> str:
    """A value on one line."""
    text = value if isinstance(value, str) else f"{value.dtype}{value.shape} {value.ravel()[:6]}"
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def report(by_part: dict[str, Compared], ulp: float) -> None:
    """One row per part, and the first differences."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for heading in ("", "compared", "new", "differ", f"by more than {ulp:g} ulp", "largest, ulp"):
        table.add_column(heading, justify="right" if heading else "left")
    for part, found in by_part.items():
        far = len(beyond(found, ulp))
        counts = (found.results, found.new, len(found.distances), far)
        row = (*map(str, counts), f"{found.largest:.3g}")
        table.add_row(part, *row)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(table)
    for found in by_part.values():
        for name, line in list(found.lines.items())[:SHOWN]:
            console.print(f"{name}: {line}")


def beyond(found: Compared, ulp: float) -> list[str]:
    """The results that differ by more than `ulp`; with 0, in any bit."""
    return [name for name, far in found.distances.items() if ulp == 0 or far > ulp]


def main() -> None:
    """Run both checkouts, compare, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--beside", type=Path, required=True, help="the other checkout's folder")
    parser.add_argument("--batches", type=int, default=1000, help="random batches (default 1000)")
    parser.add_argument("--ulp", type=float, default=0, help="distance that is allowed (default 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        own, other = (
            results_of(checkout, options.batches, Path(folder))
            for checkout in (ROOT, options.beside)
        )
    found = {part: compare(own[part], other[part]) for part in own}
    report(found, options.ulp)
    if any(beyond(part, options.ulp) for part in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
