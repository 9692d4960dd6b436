"""The preflight scores the made-up responses at each of a signal's servers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.signals.served import truth
from tests.signals.served.conftest import Misbehaving, process, second, second_process, server
from tests.signals.served.test_client import STEP, prm

import stepcredit as sc
from stepcredit.engines.preflight.made_up_credit import CreditSources, check_scoring
from stepcredit.engines.preflight.preflight_report import Preflight
from stepcredit.signals.combine import Affine
from stepcredit.signals.splitting import BlankLine

__all__ = ["process", "second", "second_process", "server"]


def preflight(signal: sc.Signal) -> Preflight:
    """What is found for the process stream."""
    found = Preflight()
    responses = [replace(each, steps=None) for each in truth.responses(3)]
    sources = CreditSources(
        sc.PASS(), BlankLine(), {"process": signal}, places={"process": "process_signal"}
    )
    check_scoring(found, sources, responses, outcomes=[1.0, 0.0, 1.0])
    return found


def test_each_server_is_asked(server: Misbehaving, second: Misbehaving) -> None:
    server.plan(setting=STEP)
    second.plan(setting=STEP)
    found = preflight(Affine(prm([server.url, second.url]), scale=2.0))
    assert found.faults == []
    whats = [each.what for each in found.results]
    for url in (server.url, second.url):
        assert f"signal process: prm-served (prm) at {url}" in whats
    assert "signal process: prm-served (prm): the same from each server" in whats
    assert "signal process" in whats
    assert (server.count()["questions"], second.count()["questions"]) == (3, 3)


def test_a_dead_server_is_a_fault_by_its_address(server: Misbehaving, second: Misbehaving) -> None:
    server.plan(setting=STEP)
    second.plan(fail=[503, "", {}])
    [fault] = preflight(prm([server.url, second.url])).faults
    assert f"{second.url}/pooling: HTTP 503 (attempt 2, the last)" in fault
    assert server.url not in fault


def test_servers_of_other_weights_are_a_fault(server: Misbehaving, second: Misbehaving) -> None:
    server.plan(setting=STEP)
    second.plan(setting={**STEP, "shift": 300})
    [fault] = preflight(prm([server.url, second.url])).faults
    assert fault.startswith(f"process_signal: scores of prm-served at {server.url} and ")
    assert f" and {second.url} differ by 0." in fault
    assert fault.endswith(" on average: they do not serve the same weights")


def test_other_weights_are_not_hidden_by_a_scale(server: Misbehaving, second: Misbehaving) -> None:
    server.plan(setting=STEP)
    second.plan(setting={**STEP, "shift": 300})
    [fault] = preflight(Affine(prm([server.url, second.url]), scale=0.05)).faults
    assert "scores of prm-served at" in fault
    assert fault.endswith(" on average: they do not serve the same weights")


def test_small_differences_are_not_enlarged_by_a_scale(
    server: Misbehaving, second: Misbehaving
) -> None:
    server.plan(setting=STEP)
    second.plan(setting={**STEP, "shift": 10})
    assert preflight(prm([server.url, second.url])).faults == []
    assert preflight(Affine(prm([server.url, second.url]), scale=1000.0)).faults == []


@pytest.mark.parametrize("count", [1, 2])
def test_one_server_is_asked_once(server: Misbehaving, second: Misbehaving, count: int) -> None:
    server.plan(setting=STEP)
    second.plan(setting=STEP)
    urls = [server.url, second.url][:count]
    found = preflight(prm(urls if count > 1 else urls[0]))
    asked = [each.what for each in found.results if each.what.startswith("signal process")]
    assert len(asked) == (1 if count == 1 else 3)
