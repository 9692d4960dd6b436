"""Test each engine in the environments that we call known to be good.

    python tools/environments.py FOLDER                      # build and test all of them
    python tools/environments.py FOLDER trl-oldest verl-vllm
    python tools/environments.py --table                     # write the table of docs/versions.md

Each environment is a folder below FOLDER, made once. The results go into
`src/stepcredit/engines/known_environments.json`, and the table is written from there. The CPU build
of torch that constraints.txt names is installed first and alone, so that no resolver takes another.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from stepcredit._deprecations import DEPRECATIONS
from stepcredit.engines.known_environments import PATH, KnownEnvironment, release_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "versions.md"
EXTRAS = ("train", "signals", "rewards")
RUNNERS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis", "jsonschema")
STARTS_RAY = ("test_end_to_end.py", "test_sessions_on_ray.py", "test_trainer.py")
TESTS = {
    "trl": ("tests/engines/trl",),
    "verl": ("tests/engines/verl", *(f"--ignore=tests/engines/verl/{x}" for x in STARTS_RAY)),
}
"""What is run for each trainer; of verl's tests those that start a cluster of Ray are left out."""
SHOWN = {
    "trl": ("trl", "torch", "transformers", "accelerate", "peft", "datasets"),
    "verl": ("verl", "torch", "transformers", "accelerate", "ray", "TransferQueue", "tensordict"),
}
PINNED = ("vllm", "torch", "transformers")
NAMED_RANGES = re.compile(r"([A-Za-z][\w.-]*)(?:\[[\w,]+\])?\s*([<>=!~].*)?")


@dataclass(frozen=True)
class Row:
    """How one environment is made.

    Args:
        trainer: "trl" or "verl".
        says: what it is, for the table.
        pins: versions that replace those of the list that the environment is made from.
    """

    trainer: str
    says: str
    pins: Mapping[str, str]


def lower_bounds() -> dict[str, str]:
    """The lowest version that pyproject.toml names of each package of `EXTRAS` and of the core."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = project["dependencies"] + [
        each for extra in EXTRAS for each in project["optional-dependencies"][extra]
    ]
    found: dict[str, str] = {}
    for requirement in listed:
        match = NAMED_RANGES.fullmatch(requirement)
        bound = match and re.search(r"[>=]=\s*([\d.]+)", match[2] or "")
        if match and bound and match[1] != "torch":
            name = match[1].lower()
            known = found.get(name, bound[1])
            found[name] = max(known, bound[1], key=release_of)
    return found


def rows() -> dict[str, Row]:
    """All environments by name; "oldest" has the lower bounds of pyproject.toml."""
    return {
        "trl-oldest": Row("trl", "the lower bounds of pyproject.toml", lower_bounds()),
        "trl-pinned": Row("trl", "constraints.txt: what `make test` runs on", {}),
        "trl-newest": Row("trl", "the newest releases that pip finds", {}),
        "verl-vllm": Row("verl", "with the transformers of verl[vllm]", {"transformers": "5.9.0"}),
        "verl-pinned": Row("verl", "requirements-verl.txt: what `make test-verl` runs on", {}),
    }


def pip_arguments(name: str, row: Row, folder: Path) -> Iterator[list[str]]:
    """The arguments of each `pip install` after torch."""
    torch = (ROOT / "constraints.txt").read_text().partition("torch==")[2].split()[0]
    if row.trainer == "verl":
        wanted = folder / "requirements.txt"
        text = (ROOT / "requirements-verl.txt").read_text()
        for package, version in row.pins.items():
            text = re.sub(rf"(?m)^{package}==.*$", f"{package}=={version}", text)
        wanted.write_text(text)
        yield ["--no-deps", "--requirement", str(wanted)]
        yield ["--no-deps", "--editable", str(ROOT)]
        return
    package = f"{ROOT}[{','.join(EXTRAS)}]"
    if name == "trl-newest":
        yield ["--upgrade", f"torch=={torch}", "--editable", package, *RUNNERS]
        return
    wanted = folder / "constraints.txt"
    lines = [f"torch=={torch}", *(f"{each}=={version}" for each, version in row.pins.items())]
    wanted.write_text("\n".join(lines) + "\n")
    listed = wanted if row.pins else ROOT / "constraints.txt"
    yield ["--constraint", str(listed), "--editable", package, *RUNNERS]


def build(name: str, row: Row, folder: Path) -> Path:
    """Make an environment, if it is not there yet; its Python."""
    python = folder / "bin" / "python"
    done = folder / ".ready"
    if done.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), "torch"], check=True)
    for arguments in pip_arguments(name, row, folder):
        subprocess.run([*pip, *arguments], check=True)
    done.touch()
    return python


def installed(python: Path) -> dict[str, str]:
    """The versions in an environment, by lower-case name, and that of Python."""
    code = (
        "import json, platform; from importlib.metadata import distributions\n"
        "found = {d.metadata['Name'].lower(): d.version for d in distributions()}\n"
        "print(json.dumps({**found, 'python': platform.python_version()}))"
    )
    return dict(json.loads(output_of(python, code)))


def pins_for_vllm(python: Path, trainer: str) -> dict[str, str]:
    """What a trainer's own extra `vllm` asks for of `PINNED`, by package."""
    code = (
        "import json; from importlib.metadata import requires\n"
        f"print(json.dumps(requires({trainer!r})))"
    )
    found = {}
    for requirement in json.loads(output_of(python, code)):
        named, _, condition = requirement.partition(";")
        match = re.match(r"[\w.-]+", named)
        bounds = re.findall(r"[<>=!~]=?[\d.]+", named)
        if match and match[0] in PINNED and bounds and 'extra == "vllm"' in condition:
            in_order = sorted(bounds, key=lambda bound: bound[0], reverse=True)
            found[match[0]] = ",".join(in_order)
    return found


def output_of(python: Path, code: str) -> str:
    """What a few lines of Python print in an environment."""
    command = [str(python), "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def tried(name: str, row: Row, folder: Path) -> KnownEnvironment:
    """Run the engine's tests in an environment."""
    python = build(name, row, folder)
    report = folder / "report.xml"
    command = [*TESTS[row.trainer], "-q", "-n0", f"--junitxml={report}"]
    ended = subprocess.run([str(python), "-m", "pytest", *command], cwd=ROOT)
    if ended.returncode not in (0, 1):
        raise SystemExit(f"{name}: pytest ended with exit code {ended.returncode}")
    found = installed(python)
    names = [*lower_bounds(), *map(str.lower, SHOWN[row.trainer])]
    counts = counted(report)
    spelled = {each.lower(): each for each in SHOWN[row.trainer]}
    return KnownEnvironment(
        name=name,
        trainer=row.trainer,
        python=found["python"],
        versions={
            spelled.get(each, each): found[each] for each in sorted(set(names)) if each in found
        },
        pins=pins_for_vllm(python, row.trainer),
        tests=f"pytest {' '.join(TESTS[row.trainer])}",
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        **counts,
    )


def counted(report: Path) -> dict[str, int]:
    """Numbers of tests that passed, were skipped and failed, from pytest's report."""
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failed, errors, skipped = (
        sum(int(suite.get(key, 0)) for suite in suites)
        for key in ("tests", "failures", "errors", "skipped")
    )
    bad = failed + errors
    return {"passed": total - bad - skipped, "skipped": skipped, "failed": bad}


def table(known: list[KnownEnvironment]) -> str:
    """The environments as tables in Markdown, one per trainer."""
    parts = []
    for trainer, columns in SHOWN.items():
        head = ["environment", *columns, "the trainer's own extra `vllm`", "tests"]
        lines = [head, ["---"] * len(head)]
        for each in known:
            if each.trainer != trainer:
                continue
            count = f"{each.passed} passed, {each.skipped} skipped"
            count += f", **{each.failed} failed**" if each.failed else ""
            versions = [each.versions.get(name, "") for name in columns]
            pins = ", ".join(f"{name} {asked}" for name, asked in each.pins.items())
            cells = [f"`{each.name}`", *versions, pins, f"{count}, {each.date}"]
            lines.append(cells)
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts)


def deprecation_table() -> str:
    """What is deprecated, as a table in Markdown."""
    lines = [["old", "new", "warns since", "gone in"], ["---"] * 4]
    lines += [[each.old, each.new, each.since, each.gone] for each in DEPRECATIONS]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_tables(text: str, known: list[KnownEnvironment]) -> str:
    """The page with both tables between their marks."""
    for name, shown in (("environments", table(known)), ("deprecations", deprecation_table())):
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{shown}\n{end}{rest.partition(end)[2]}"
    return text


def recorded() -> list[KnownEnvironment]:
    """The results so far."""
    return [KnownEnvironment(**each) for each in json.loads(PATH.read_text())]


def main() -> None:
    """Build, test, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where environments are made")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(rows())}; none: all")
    parser.add_argument("--table", action="store_true", help="write the table, run nothing")
    given = parser.parse_args()
    known = {each.name: each for each in recorded()} if PATH.exists() else {}
    if not given.table:
        if given.folder is None:
            parser.error("name a folder for the environments")
        for name in given.names or rows():
            found = tried(name, rows()[name], given.folder.resolve() / name)
            known[name] = found
            in_order = [known[each] for each in rows() if each in known]
            PATH.write_text(json.dumps([asdict(each) for each in in_order], indent=1) + "\n")
            print(f"{name}: {found.passed} passed, {found.skipped} skipped, {found.failed} failed")
    PAGE.write_text(with_tables(PAGE.read_text(), recorded()))


if __name__ == "__main__":
    main()
