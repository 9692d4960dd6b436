"""The paths of `shaping.py` in this checkout and in another one, which take turns.

    python benchmarks/before_after.py --beside PATH             a table: both, and their ratio
    python benchmarks/before_after.py --beside PATH --rounds 5

Each checkout runs in a process of its own, on the batch of 1024 x 4096 tokens of this checkout's
benchmarks. In every round each path runs in one process and then in the other, so both meet the
same machine. `interleaved.py` says what the figures are. A path that the other checkout does not
have, or has under other names, is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import contenders as c
from batches import Batch
from interleaved import KEEP_MAPPED, race
from speed_bars import MAIN, Size

SMOKE: Size = (32, 64)
"""A small batch, which tries the script alone."""
ROOT = Path(__file__).resolve().parents[1]


class Checkout:
    """A process that runs the paths of one checkout when it is told to.

    Args:
        path: the checkout's root.
        options: further options of its process.
    """

    def __init__(self, path: Path, *options: str) -> None:
        source = path.resolve() / "src"
        command = [sys.executable, __file__, "--serve", *options]
        environment = os.environ | KEEP_MAPPED | {"PYTHONPATH": str(source)}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        hello = self._answer()
        if not Path(hello["package"]).is_relative_to(source):
            raise SystemExit(f"{hello['package']} was imported, not the package of {source}")
        self.names: list[str] = hello["names"]

    def least(self, name: str) -> float:
        """Milliseconds of CPU time of one path, in one turn."""
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        return float(self._answer()["least"])

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the process of a checkout ended; its error stands above")
        found: dict[str, Any] = json.loads(line)
        return found


def serve(size: Size) -> None:
    """Run what the lines of standard input name, and answer with the time of each."""
    import stepcredit

    paths = usable(Batch(*size))
    print(json.dumps({"package": stepcredit.__file__, "names": list(paths)}), flush=True)
    for line in sys.stdin:
        name = line.rstrip("\n")
        print(json.dumps({"least": race({name: paths[name]}, 1)[name].least}), flush=True)


def usable(batch: Batch) -> dict[str, Callable[[], Any]]:
    """The paths that run in this process's checkout; others are named on standard error."""
    found: dict[str, Callable[[], Any]] = {}
    for kind in (c.core, c.engines, c.metrics):
        try:
            made = kind(batch)
        except (ImportError, AttributeError, TypeError) as error:
            print(f"left out, {kind.__name__}: {error}", file=sys.stderr)
            continue
        for name, run in made.items():
            try:
                run()
            except (ImportError, AttributeError, TypeError) as error:
                print(f"left out, {name}: {error}", file=sys.stderr)
            else:
                found[name] = run
    return found


def report(size: Size, before: dict[str, list[float]], after: dict[str, list[float]]) -> None:
    """Minima of both, their ratio, and each one's times over those of its copy."""
    table = Table(title=f"{size[0]} × {size[1]}, milliseconds of CPU time, minima")
    for heading in ("", "beside", "here", "here / beside", "beside × copy", "here × copy"):
        table.add_column(heading, justify="left" if not heading else "right")
    old_copy, new_copy = min(before[c.COPY]), min(after[c.COPY])
    for name in before:
        old, new = min(before[name]), min(after[name])
        ratios = f"{new / old:.2f}", f"{old / old_copy:.1f}", f"{new / new_copy:.1f}"
        table.add_row(name, f"{old:.2f}", f"{new:.2f}", *ratios)
    Console(width=110).print(table)


def main() -> None:
    """Both checkouts in turns, and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--beside", type=Path, help="root of the other checkout")
    parser.add_argument("--rounds", type=int, default=9, help="rounds (default 9)")
    parser.add_argument("--smoke", action="store_true", help="a small batch")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = SMOKE if options.smoke else MAIN
    if options.serve:
        serve(size)
        return
    if options.beside is None or not (options.beside / "src" / "stepcredit").is_dir():
        parser.error("--beside names the root of another checkout, which holds src/stepcredit")
    more = ["--smoke"] * options.smoke
    old, new = Checkout(options.beside, *more), Checkout(ROOT, *more)
    names = [name for name in new.names if name in old.names]
    before: dict[str, list[float]] = {name: [] for name in names}
    after: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            before[name].append(old.least(name))
            after[name].append(new.least(name))
    report(size, before, after)


if __name__ == "__main__":
    main()
