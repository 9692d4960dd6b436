"""What the documents show is what the code does."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import stepcredit as sc
import stepcredit.prm.published_protocols
from stepcredit.credit.stages.chunker_registry import CHUNKERS
from stepcredit.prm.protocol import PROTOCOLS
from stepcredit.rewards.reward_registry import rewards
from stepcredit.signals import BlankLine, Response
from stepcredit.signals.signal_registry import SIGNALS, signal
from stepcredit.signals.splitting import SPLITTERS

MADE_IN_DOCTESTS = {"short", "at-semicolons"}

ROOT = Path(__file__).resolve().parents[1]


def blocks(path: str, language: str = "python") -> list[str]:
    """The fenced blocks of a document in one language."""
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def test_readme_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    exec(blocks("README.md")[0], {})
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    table = [line.rstrip() for line in blocks("README.md", "text")[0].strip().splitlines()]
    assert len(table) == 4
    assert set(table) <= set(printed)


def test_readme_loop_is_the_middle_of_the_example() -> None:
    loop = next(block for block in blocks("README.md") if "optimizer.step()" in block)
    example = (ROOT / "examples/plain_loop.py").read_text()
    assert textwrap.indent(loop, " " * 8).rstrip() in example


@pytest.mark.parametrize("path", ["README.md", "docs/methods.md"])
def test_every_method_is_in_the_tables(path: str) -> None:
    table = "".join(line for line in (ROOT / path).read_text().splitlines() if line[:1] == "|")
    own = {name for name, kind in sc.methods().items() if kind.__module__.startswith("stepcredit")}
    assert {name for name in own if f"`{name}`" not in table} == set()


@pytest.mark.parametrize(
    ("path", "there_are"),
    [
        ("docs/signals.md", SIGNALS.all),
        ("docs/signals.md", SPLITTERS.all),
        ("docs/signals.md", PROTOCOLS.all),
        ("docs/rewards.md", rewards),
        ("README.md", SIGNALS.all),
    ],
)
def test_everything_by_name_is_in_the_documents(
    path: str, there_are: Callable[[], dict[str, type]]
) -> None:
    text = (ROOT / path).read_text()
    own = {name for name, kind in there_are().items() if kind.__module__.startswith("stepcredit")}
    missing = {name for name in own - MADE_IN_DOCTESTS if f"`{name}`" not in text}
    assert missing == ({"logprobs", "logprobs-served"} if path == "README.md" else set())


def test_documented_signal_scores() -> None:
    code = next(block for block in blocks("docs/signals.md") if "class Short" in block)
    exec(code, {"__name__": __name__})
    response = Response.of_text("?", "brief\n\n" + "long " * 17)
    assert signal("short").scores(BlankLine()([response])) == [[0.0, -5.0]]


def test_contributed_estimator_is_short_and_works() -> None:
    code, _ = blocks("CONTRIBUTING.md")
    modules = {line.split()[1] for line in code.splitlines() if line.startswith("from ")}
    assert modules == {"dataclasses", "stepcredit.credit.stages"}
    assert len(code.split("@sc.register")[1].splitlines()) < 30
    names: dict[str, object] = {}
    exec(code, names)
    rollouts = sc.Rollouts(
        group=[0, 0], process=sc.Steps([[0, 1], [1]], [[1.0, 0.0], [0.5]]), outcome=[1.0, 0.0]
    )
    plain = sc.estimator("return-plus", weight=0.0)(rollouts).packed()
    grpo = sc.GRPO()(rollouts).packed()
    assert plain.tolist() == pytest.approx(grpo.tolist())
    explained = sc.estimator("return-plus").explain(rollouts)
    assert [row["return_to_go"] for row in explained.rows] == pytest.approx(
        [0.0, -1.0, 0.0], abs=1e-5
    )


def test_contributed_chunker_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CHUNKERS, "_known", dict(CHUNKERS._known))  # other tests use the name too
    _, code = blocks("CONTRIBUTING.md")
    exec(code, {"__name__": __name__})
    rollouts = sc.Rollouts(group=[0, 0], process=sc.Tokens([[3.0, 1.0, 0.0, 2.0], [0.5, 1.5]]))
    pairs, triples = (
        sc.PASS(chunks={"every-n": {"n": n}}).explain(rollouts).last.tolist() for n in (2, 3)
    )
    assert (pairs, triples) == ([1, 3, 1], [2, 3, 1])


PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "tasks").glob("*.md")]
)
WITH_COMMANDS = {"docs/from-grpo.md"}
"""Pages whose commands run between their blocks, in a test of their own."""
SELF_CONTAINED = [
    page
    for page in PAGES
    if page not in WITH_COMMANDS and any("import stepcredit" in block for block in blocks(page))
]

NEEDED = {"docs/tutorial.md": ("trl", "matplotlib")}
"""Packages without which a page is skipped."""


@pytest.mark.parametrize("page", SELF_CONTAINED)
def test_a_page_runs_and_prints_what_it_shows(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Blocks that need a model or a server are marked `py`; each page starts with its imports."""
    for package in NEEDED.get(page, ()):
        pytest.importorskip(package)
    names: dict[str, object] = {"__name__": __name__}
    for code in blocks(page):
        exec(code, names)
    printed = capsys.readouterr().out.splitlines()
    shown = re.findall(r"^print\(.*\)  # (.*)$", "".join(blocks(page)), re.MULTILINE)
    values = [line for line in shown if line[:1] == "[" or line.startswith("t")]
    assert [line for line in values if line not in printed] == []


def test_no_page_installs_a_package_that_the_registry_does_not_have() -> None:
    """The project is installed from a checkout: `pip install stepcredit` finds nothing."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/**/*.md")]
    for page in pages:
        for line in re.findall(r"pip install[^\n`]*", page.read_text()):
            assert not re.search(r"(?<![\w./-])stepcredit", line), f"{page.name}: {line}"


def test_the_run_time_of_training_is_the_same_everywhere() -> None:
    said = re.search(r"`make train`[^:]*: it took (\d+) min", (ROOT / "README.md").read_text())
    assert said is not None
    assert "about five minutes on two CPU cores" in (ROOT / "Makefile").read_text()
    assert abs(int(said[1]) - 5) <= 1
