"""The list of tested environments: true to the project's files, and read by docs and doctor."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from tests.loading import module_of

from stepcredit.engines import known_environments
from stepcredit.engines.known_environments import (
    KnownEnvironment,
    environment_verdict,
    good_environments,
    unlike_pins,
)

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALL = known_environments.known_environments()
BY_NAME = {each.name: each for each in ALL}
environments = module_of(ROOT / "tools" / "environments.py")


def requirements(*extras: str) -> list[Requirement]:
    """What the core and some extras ask for, without the extras of ours that they name."""
    listed = PROJECT["dependencies"] + [
        each for extra in extras for each in PROJECT["optional-dependencies"][extra]
    ]
    found = map(Requirement, listed)
    return [each for each in found if each.name != "stepcredit"]


def lowest(requirement: Requirement) -> Version:
    return max(
        Version(each.version) for each in requirement.specifier if each.operator in (">=", "==")
    )


def test_the_oldest_environment_has_the_lower_bounds_that_are_stated() -> None:
    """A bound that was not run is a promise that nobody has tried; torch has but one build here."""
    ran = {name.lower(): version for name, version in BY_NAME["trl-oldest"].versions.items()}
    bounds: dict[str, Version] = {}
    for each in requirements("train", "signals", "rewards"):
        name = each.name.lower()
        bounds[name] = max(bounds.get(name, Version("0")), lowest(each))
    del bounds["torch"]
    unlike = {
        name
        for name, bound in bounds.items()
        if Version(ran[name]).release[:2] != (*bound.release, 0)[:2]
    }
    assert unlike == set()


@pytest.mark.parametrize("trainer", ["trl", "verl"])
def test_the_range_of_the_trainer_is_the_one_that_was_tested(trainer: str) -> None:
    extra = {"trl": "train"}.get(trainer, trainer)
    (asked,) = (each for each in requirements(extra) if each.name == trainer)
    first, beyond = known_environments.supported_range(trainer)
    assert lowest(asked) == Version(first)
    (upper,) = (each.version for each in asked.specifier if each.operator == "<")
    assert Version(upper) == Version(beyond)


@pytest.mark.parametrize(
    ("name", "file"), [("trl-pinned", "constraints.txt"), ("verl-pinned", "requirements-verl.txt")]
)
def test_the_pinned_environments_are_those_of_make_test(name: str, file: str) -> None:
    pinned = dict(re.findall(r"(?m)^([\w.-]+)==([\w.]+)$", (ROOT / file).read_text().lower()))
    ran = {
        each.lower(): version.partition("+")[0] for each, version in BY_NAME[name].versions.items()
    }
    both = ran.keys() & pinned.keys()
    assert len(both) > 8
    assert {each: ran[each] for each in both} == {each: pinned[each] for each in both}


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_a_row_was_run(each: KnownEnvironment) -> None:
    assert each.passed > 100
    assert each.failed == 0
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", each.date)
    assert each.tests.startswith(f"pytest tests/engines/{each.trainer}")
    assert "vllm" in each.pins


def test_the_page_has_the_tables_of_the_lists() -> None:
    text = environments.PAGE.read_text()
    assert environments.with_tables(text, list(ALL)) == text, "python tools/environments.py --table"
    for each in ALL:
        assert f"| `{each.name}` | {each.versions[each.trainer]} |" in text


def test_an_environment_is_known_by_trainer_torch_and_transformers() -> None:
    row = BY_NAME["trl-pinned"]
    here = {"trl": row.versions["trl"], "torch": "2.13.0+cu130", "transformers": "5.23.0"}
    passed = f"{row.passed} tests passed on a CPU (trl-pinned)"
    known = f"known good: trl 1.16.0, torch 2.13.0, transformers 5.23.0: {passed}"
    assert environment_verdict("trl", here) == known
    older = environment_verdict("trl", {**here, "torch": "2.11.0"})
    assert older.startswith("not tested together: trl 1.16.0, torch 2.11.0, transformers 5.23.0")
    assert "1.16.0 2.13.0 5.23.0" in older
    assert environment_verdict("trl", {"trl": "1.16.0", "torch": "2.13.0"}) == (
        "not installed: transformers"
    )
    sampled = environment_verdict("trl", {**here, "vllm": "0.33.0"})
    assert sampled.startswith(f"{known}; vllm 0.33.0 is not what trl's extra vllm asks for, ")
    assert environment_verdict("trl", {**here, "vllm": "0.30.1"}) == known


def test_verl_s_own_extra_pins_more_than_vllm() -> None:
    theirs = {"verl": "0.9.1", "torch": "2.11.0+cu130", "transformers": "5.9.0", "vllm": "0.24.0"}
    assert unlike_pins("verl", theirs) == []
    (line,) = unlike_pins("verl", {**theirs, "torch": "2.13.0"})
    assert line == "torch 2.13.0 is not what verl's extra vllm asks for, ==2.11.0"
    assert unlike_pins("verl", {"verl": "0.9.1", "torch": "2.13.0"}) == []


def test_an_environment_whose_tests_failed_is_not_good(monkeypatch: pytest.MonkeyPatch) -> None:
    newest = BY_NAME["trl-newest"]
    versions = {**newest.versions, "trl": "1.18.0"}
    broken = replace(newest, name="next", versions=versions, failed=3)
    monkeypatch.setattr(known_environments, "known_environments", lambda: (*ALL, broken))
    assert "next" not in {each.name for each in good_environments("trl")}
    assert known_environments.supported_range("trl") == ("1.16.0", "1.17")
    here = {name: versions[name] for name in ("trl", "torch", "transformers")}
    assert environment_verdict("trl", here).startswith("not tested together: trl 1.18.0")


def test_a_report_of_pytest_is_counted(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    suite = '<testsuite tests="12" failures="2" errors="1" skipped="3"/>'
    report.write_text(f"<testsuites>{suite}</testsuites>")
    assert environments.counted(report) == {"passed": 6, "skipped": 3, "failed": 3}


def test_every_environment_of_the_tool_says_what_it_is(tmp_path: Path) -> None:
    for name, row in environments.rows().items():
        assert name.startswith(row.trainer)
        lines = list(environments.pip_arguments(name, row, tmp_path))
        assert any("--editable" in line for line in lines)
    wanted = (tmp_path / "requirements.txt").read_text()
    assert "verl==0.9.1" in wanted
    other = environments.rows()["verl-vllm"]
    list(environments.pip_arguments("verl-vllm", other, tmp_path))
    assert "\ntransformers==5.9.0\n" in (tmp_path / "requirements.txt").read_text()
    assert json.loads(known_environments.PATH.read_text())
