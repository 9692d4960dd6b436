"""The figures of docs/audit.md are those of the commands that it shows, on one saved run."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run, run

pytest.importorskip("scipy")

__all__ = ["run"]  # a fixture
PAGE = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
SAVED = Path(__file__).with_name("example_rollouts.jsonl.gz")
"""What `stepcredit train --quick --signal hackable --compare none --name example` sampled."""
SETTINGS = ("--set", "weights=[1,1,0.3]", "--set", "clip=5")
LOG = "runs/example/rollouts.jsonl"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The saved run, at the path that the page names."""
    path = tmp_path / LOG
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.decompress(SAVED.read_bytes()))
    method = {"method": "pass", "weights": [1, 1, 0.3], "clip": 5}
    path.with_name("config.json").write_text(json.dumps({"estimators": {"pass": method}}))
    return path


def page() -> str:
    """The page's text on one line, with ordinary minus signs."""
    return " ".join(PAGE.read_text().replace("−", "-").split())


def shown_output(command: str) -> list[str]:
    """The lines that the page shows behind a command, in its block or in the next one of text."""
    blocks = re.findall(r"```(?:console|text)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    place = next(at for at, block in enumerate(blocks) if f"$ {command}\n" in block)
    lines = blocks[place].partition(f"$ {command}\n")[2] or blocks[place + 1]
    return [line for line in lines.splitlines() if line.strip() not in ("", "...")]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (f"stepcredit audit {LOG} -o report.html", (LOG,)),
        (
            f"stepcredit audit {LOG} --conformance --method pass --set 'weights=[1,1,0.3]' "
            "--set clip=5",
            (LOG, "--conformance", "--method", "pass", *SETTINGS),
        ),
        (
            "stepcredit audit runs/example -o run.html",
            ("runs/example",),
        ),
    ],
)
def test_the_output_on_the_page_is_that_of_the_command(
    command: str, arguments: tuple[str, ...], run: Run, log: Path
) -> None:
    lines = iter(run("audit", *arguments).out.splitlines())
    expected = shown_output(command)
    assert len(expected) >= 3
    for line in expected:
        assert line in lines, line  # each behind the one before it


def report(run: Run, *arguments: str) -> dict[str, Any]:
    """The JSON report of the saved run."""
    return dict(json.loads(run("audit", LOG, *arguments, "--json", "-").out))


def figure(found: dict[str, Any], check: str, words: str, whose: str) -> dict[str, Any]:
    """The figure of a check whose name holds the words, of a method or a stream."""
    (one,) = [
        each
        for each in found["checks"][check]["figures"]
        if words in each["name"] and whose in (each["method"], each["stream"])
    ]
    return dict(one)


def interval(one: dict[str, Any], digits: int = 2, sign: str = "") -> str:
    """A figure as the page writes it: its value, and its interval in brackets."""
    value, low, high = (f"{one[name]:{sign}.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def test_the_figures_in_the_text_are_those_of_the_report(run: Run, log: Path) -> None:
    found, first = report(run, *SETTINGS), report(run)
    text = page()
    order = "rank correlation with what steps change"
    leak = "size on steps that change nothing"
    gap = "advantage of filler steps minus"
    pair, empty = "pure, pass-min", "mean advantage of responses without content"
    pay = figure(found, "hack_detectors", empty, "pure")
    alike = figure(found, "methods", "rank correlation of", pair)["value"]
    same = figure(found, "methods", "same sign", pair)["value"]
    format_only = figure(first, "hack_detectors", "that only the format gives", "pass")
    stored = figure(first, "stored advantages", "share of responses", "pass")
    expected = [
        f"different in {round((1 - stored['value']) * 192)} of 192 responses",
        f"paid {format_only['value']:.0%}".replace("%", " %") + " of the wrong responses under "
        f"`pass` ({round(format_only['value'] * format_only['count'])} of {format_only['count']})",
        "signal itself has a rank correlation of "
        f"{figure(found, 'q_alignment', order, 'process')['value']:.2f} with it",
        f"credit of `pure` has {interval(figure(found, 'q_alignment', order, 'pure'))},",
        f"with a correlation of {alike:.2f} only, and give {same * 100:.0f} % of the tokens",
        f"interval of their mean advantage is {pay['low']:.2f} to {pay['high']:.2f}.",
        f"{interval(figure(found, 'q_alignment', leak, 'process'))}.".replace(
            " (", " times the mean size ("
        ),
        f"is {interval(figure(found, 'payment', gap, 'pass'), sign='+')} for `pass`",
        f"and {interval(figure(found, 'payment', gap, 'pass-min'), sign='+')} for `pass-min`",
    ]
    assert [each for each in expected if each not in text] == []
    sentences = [finding["sentence"] for finding in found["findings"]]
    assert any("1 of 2 responses without content" in each for each in sentences)
    assert not any("format" in each for each in sentences)


def test_what_the_text_says_of_line_110_is_true(run: Run, log: Path) -> None:
    from stepcredit.audit.logged_batch import LoggedBatch
    from stepcredit.audit.shown_rows import group_places, mean_advantages
    from stepcredit.cli.audit import audited_methods

    assert "Follow the link to line 110 in the page" in page()
    found = report(run, *SETTINGS)
    (note,) = [each for each in found["findings"] if each["check"] == "methods"]
    assert 110 in [place["line"] for place in note["places"]]
    batch = LoggedBatch.read(log)
    row, group = batch.rows[109], batch.rollouts.group_index.numpy()
    assert (row.outcome, row.format_ok, len(row.fields["step_ends"])) == (1.0, False, 8)
    methods = audited_methods(["pass", "pure"], [SETTINGS[1], SETTINGS[3]])
    means = mean_advantages({name: each(batch.rollouts) for name, each in methods.items()})
    size = (group == group[109]).sum()
    places = {name: group_places(values, group)[109] for name, values in means.items()}
    assert places == {"pass": size, "pure": 1}
    labels = [label for each in batch.step_labels or [] for label in each]
    assert labels.count("wrong") > len(labels) / 2
