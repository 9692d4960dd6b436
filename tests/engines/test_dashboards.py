"""Dashboards: every metric is drawn once, under the names of both engines."""

from __future__ import annotations

import json
import os
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from stepcredit.cli import app
from stepcredit.credit.metrics.metric_table import METRICS, PANELS
from stepcredit.engines.dashboards.charts import NOT_DRAWN, TOGETHER, charts, plot_order


def run(*arguments: str) -> tuple[int, str, str]:
    ended = CliRunner().invoke(app, ["panels", *arguments])
    return ended.exit_code, ended.stdout, ended.stderr


def logged_names() -> list[str]:
    """One name per row of the table, for a stream with signs in its name."""
    rows = [row.name for row in METRICS if row.name not in NOT_DRAWN]
    return [name.replace("STREAM", "my-judge.v2") for name in rows]


def test_every_metric_is_in_one_chart_whoever_logs_it() -> None:
    every = [chart for section in charts().values() for chart in section]
    assert list(charts()) == list(PANELS)
    for name in logged_names():
        for logged in (f"stepcredit/{name}", f"train/stepcredit/{name}"):
            found = [chart.title for chart in every if re.search(chart.pattern, logged)]
            assert len(found) == 1, (logged, found)
        for other in (f"eval/stepcredit/{name}", name, f"stepcredit/{name}_more/x"):
            strays = [chart for chart in every if re.search(chart.pattern, other)]
            assert "/" in name or strays == [], other
    assert {chart.title for chart in every} >= set(TOGETHER)


def test_trackios_order_has_every_metric_once() -> None:
    order = plot_order()
    assert len(set(order)) == len(order)
    for name in logged_names():
        for logged in (f"stepcredit/{name}", f"train/stepcredit/{name}"):
            matches = [p for p in order if re.fullmatch(re.escape(p).replace(r"\*", ".*"), logged)]
            assert len(matches) == 1, (logged, matches)
    assert not any("," in pattern for pattern in order)


def test_the_list_says_what_each_metric_means() -> None:
    code, out, _ = run("list")
    assert code == 0
    for row in METRICS:
        assert (f"{row.name}: {row.meaning}. Drifts: {row.drift}." in out) == (
            row.name not in NOT_DRAWN
        )


def test_the_order_of_trackio_is_printed_without_trackio() -> None:
    code, out, _ = run("trackio", "--print")
    assert code == 0
    assert out == f"TRACKIO_PLOT_ORDER='{','.join(plot_order())}'\n"


def test_trackio_is_started_in_that_order(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str | None, str]] = []

    def show(project: str | None, open_browser: bool, block_thread: bool) -> Any:
        assert not open_browser
        assert not block_thread
        shown.append((project, os.environ["TRACKIO_PLOT_ORDER"]))
        return None, "http://127.0.0.1:7860/", None, "with a token"

    monkeypatch.setenv("TRACKIO_PLOT_ORDER", "")
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(show=show, __spec__=object()))
    monkeypatch.setattr("stepcredit.cli.panels.Event", lambda: SimpleNamespace(wait=lambda: None))
    link = "http://127.0.0.1:7860/?project=sums&metric_filter=stepcredit%2F"
    assert run("trackio", "--project", "sums")[:2] == (0, f"our metrics alone: {link}\n")
    assert shown == [("sums", ",".join(plot_order()))]


@pytest.mark.parametrize(
    ("tool", "package"), [("wandb", "wandb_workspaces"), ("trackio", "trackio")]
)
def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tool: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("stepcredit.requires.find_spec", lambda name: None)
    options = ("--project", "sums", "--entity", "me") if tool == "wandb" else ()
    code, _, err = run(tool, *options)
    line = f"{package}: not installed; it comes with the extra {tool}: pip install "
    assert (code, err) == (1, f"{line}'stepcredit[{tool}]'\n")


def test_wandb_needs_to_know_where_the_view_goes() -> None:
    code, _, err = run("wandb", "--project", "sums")
    assert (code, err) == (1, "--entity: W&B needs it, except with --print\n")


def test_the_view_of_wandb_is_printed_without_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces")
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, out, _ = run("wandb", "--print")
    assert code == 0
    sections = json.loads(out)["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == list(PANELS)
    for section, own in zip(sections, charts().values(), strict=True):
        drawn = [panel["config"] for panel in section["panels"]]
        assert [each["chartTitle"] for each in drawn] == [chart.title for chart in own]
        assert [each["metricRegex"] for each in drawn] == [chart.pattern for chart in own]
