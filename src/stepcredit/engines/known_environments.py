"""Versions of trainers and libraries that were tested together: one list for docs and checks.

`python tools/environments.py` builds each environment, runs the engine's tests in it and writes
`known_environments.json`. The table in the documents, `stepcredit doctor` and the warnings about
untested versions are made from that file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PATH = Path(__file__).with_suffix(".json")
COMPARED = ("torch", "transformers")
"""Packages whose version, beside the trainer's, says whether an environment is a known one."""


@dataclass(frozen=True)
class KnownEnvironment:
    """Versions that were installed together, and how the engine's tests ended.

    Args:
        name: such as "trl-oldest".
        trainer: "trl" or "verl".
        python: its version.
        versions: of the packages that the engine and its extras name.
        pins: what the trainer's own extra `vllm` asks for, by package: what GPUs run. Nothing of it
            but what `versions` has is run by our tests.
        tests: the command, without the environment's folder.
        date: the day of the run, YYYY-MM-DD.
        passed, skipped, failed: numbers of tests.
    """

    name: str
    trainer: str
    python: str
    versions: Mapping[str, str]
    pins: Mapping[str, str]
    tests: str
    date: str
    passed: int
    skipped: int
    failed: int

    @property
    def is_good(self) -> bool:
        """Whether tests ran, and none failed."""
        return self.passed > 0 and self.failed == 0

    @property
    def key(self) -> tuple[str, ...]:
        """The versions of the trainer and of `COMPARED`, without the build of torch."""
        return tuple(public_version(self.versions[name]) for name in (self.trainer, *COMPARED))


@cache
def known_environments() -> tuple[KnownEnvironment, ...]:
    """All environments in which an engine's tests were run, also those where some failed.

    Example:
        >>> sorted({each.trainer for each in known_environments()})
        ['trl', 'verl']
    """
    return tuple(KnownEnvironment(**row) for row in json.loads(PATH.read_text()))


def good_environments(trainer: str) -> tuple[KnownEnvironment, ...]:
    """The environments of a trainer in which every test passed."""
    return tuple(each for each in known_environments() if each.trainer == trainer and each.is_good)


def supported_range(trainer: str) -> tuple[str, str]:
    """The first version of a trainer that was tested, and the first that is too new.

    Each minor version of a trainer may change what its engine overrides. So versions up to the next
    minor version after the newest tested one are in the range.

    Args:
        trainer: "trl" or "verl".

    Example:
        >>> supported_range("trl")
        ('1.16.0', '1.17')
    """
    known = [each for each in known_environments() if each.trainer == trainer]
    rows = good_environments(trainer) or known
    versions = sorted((each.versions[trainer] for each in rows), key=release_of)
    major, minor = release_of(versions[-1])[:2]
    return versions[0], f"{major}.{minor + 1}"


def environment_verdict(trainer: str, installed: Mapping[str, str]) -> str:
    """What is known of an environment, as one line.

    Args:
        trainer: "trl" or "verl".
        installed: versions by package; at least the trainer's and those of `COMPARED`.

    Example:
        >>> versions = {"trl": "1.16.0", "torch": "2.13.0+cu128", "transformers": "4.0"}
        >>> environment_verdict("trl", versions).partition(" (tested: ")[0]
        'not tested together: trl 1.16.0, torch 2.13.0, transformers 4.0'
    """
    names = (trainer, *COMPARED)
    missing = [name for name in names if name not in installed]
    if missing:
        return f"not installed: {', '.join(missing)}"
    here = tuple(public_version(installed[name]) for name in names)
    shown = ", ".join(f"{name} {version}" for name, version in zip(names, here, strict=True))
    rows = good_environments(trainer)
    for row in rows:
        if row.key == here:
            verdict = f"known good: {shown}: {row.passed} tests passed on a CPU ({row.name})"
            break
    else:
        tested = "; ".join(" ".join(row.key) for row in rows)
        verdict = f"not tested together: {shown} (tested: {tested})"
    return "; ".join([verdict, *unlike_pins(trainer, installed)])


def unlike_pins(trainer: str, installed: Mapping[str, str]) -> list[str]:
    """What is installed beside vLLM, and is not what the trainer's own extra `vllm` asks for.

    Args:
        trainer: "trl" or "verl".
        installed: versions by package; without vLLM there is nothing to say.

    Example:
        >>> unlike_pins("trl", {"trl": "1.16.0", "vllm": "0.1.0"})
        ["vllm 0.1.0 is not what trl's extra vllm asks for, >=0.22.0,<=0.31.0"]
    """
    from packaging.specifiers import SpecifierSet

    if "vllm" not in installed:
        return []
    rows = [each for each in known_environments() if each.trainer == trainer]
    same = [each for each in rows if each.versions[trainer] == installed[trainer]] or rows
    return [
        f"{name} {installed[name]} is not what {trainer}'s extra vllm asks for, {asked}"
        for name, asked in same[-1].pins.items()
        if name in installed
        and not SpecifierSet(asked).contains(public_version(installed[name]), prereleases=True)
    ]


def public_version(version: str) -> str:
    """A version without its build.

    Example:
        >>> public_version("2.13.0+cpu")
        '2.13.0'
    """
    return version.partition("+")[0]


def release_of(version: str) -> tuple[int, ...]:
    """The numbers of a version, to compare it by.

    Example:
        >>> release_of("0.9.1.post2")
        (0, 9, 1)
    """
    from packaging.version import Version

    return Version(version).release
