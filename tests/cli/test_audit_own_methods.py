"""`stepcredit audit` compares a run's own method with the settings that the run recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.audit.made_runs import write_lines
from tests.cli.conftest import Run

import stepcredit as sc
from stepcredit.audit.run_methods import run_methods
from stepcredit.engines.run_record import describe

OUTCOMES = {1: (1.0, 0.0, 0.0, 0.0), 20: (1.0, 1.0, 0.0, 0.0)}
CLIPPED = {1: (1.0, -0.5, -0.5, -0.5), 20: (0.8660, 0.8660, -0.8660, -0.8660)}
"""GRPO of these outcomes by hand, at a clip of 1: (1 - 1/4) / (1/2) = 1.5 becomes 1."""


def rows_of(policy: str | None) -> list[dict[str, Any]]:
    named = {} if policy is None else {"method": policy}
    return [
        {
            "group": f"{policy}-{step}",
            "update": step,
            **named,
            "length": 1,
            "outcome": outcome,
            "advantages": [CLIPPED[step][at]],
        }
        for step, outcomes in OUTCOMES.items()
        for at, outcome in enumerate(outcomes)
    ]


def config_of(**estimators: dict[str, Any]) -> str:
    return json.dumps({"settings": {}, "estimators": estimators})


NONE_FITS = "stored advantages of none of the methods"


def test_the_settings_of_a_trained_run_are_read(run: Run, tmp_path: Path) -> None:
    write_lines(tmp_path / "a" / "rollouts.jsonl", rows_of("grpo"))
    assert NONE_FITS in " ".join(run("audit", "a").out.split())
    config = tmp_path / "a" / "config.json"
    config.write_text(config_of(grpo={"method": "grpo", "clip": 1.0}))
    for source in ("a", "a@1", "a@grpo:1"):
        ended = run("audit", source)
        assert (ended.code, ended.err) == (0, "")
        assert NONE_FITS not in ended.out
        assert "grpo (clip=1.0)" in ended.out
    assert NONE_FITS in " ".join(run("audit", "a", "--set", "clip=2").out.split())
    ended = run("audit", "a", "--method", "pass")
    assert "grpo" not in ended.out
    ended = run("audit", "a", "--conformance", "--method", "grpo")
    assert "The checks that ran found nothing to change." in " ".join(ended.out.split())


def test_each_policy_has_its_own_method(run: Run, tmp_path: Path) -> None:
    write_lines(tmp_path / "a" / "rollouts.jsonl", rows_of("one") + rows_of("two"))
    one, two = ({"method": "grpo", "clip": clip} for clip in (1.0, 1.2))
    (tmp_path / "a" / "config.json").write_text(config_of(one=one, two=two))
    shown = " ".join(run("audit", "a").out.split())
    assert f"{NONE_FITS}: two 1" in shown


def test_the_record_of_a_trainer_is_read_beside_its_rollouts(run: Run, tmp_path: Path) -> None:
    for step in OUTCOMES:
        rows = [row for row in rows_of(None) if row["update"] == step]
        write_lines(tmp_path / "out" / "rollouts" / f"rollouts-{step}.jsonl", rows)
    gate: dict[str, Any] = {"format_reward": None, "gate": None, "splitter": None}
    credit = describe(sc.GRPO(clip=1.0), None, outcome="accuracy", **gate)
    record = tmp_path / "out" / "stepcredit_run.json"
    record.write_text(json.dumps({"run": "a", "credit": credit}))
    ended = run("audit", "out/rollouts")
    assert (ended.code, ended.err) == (0, "")
    assert "grpo (clip=1.0)" in ended.out
    assert NONE_FITS not in ended.out


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        (
            "config.json",
            config_of(grpo={"method": "grpo", "clop": 1.0}),
            "a/config.json: the settings of grpo are not used: clop: grpo has no such field",
        ),
        (
            "stepcredit_run.json",
            json.dumps({"run": "a", "credit": {"method": "mine", "fields": {}}}),
            "a/stepcredit_run.json: its method's settings are not used: unknown method 'mine'",
        ),
    ],
)
def test_a_record_that_cannot_be_used_is_said(
    run: Run, tmp_path: Path, name: str, text: str, line: str
) -> None:
    write_lines(tmp_path / "a" / "rollouts.jsonl", rows_of("grpo"))
    (tmp_path / "a" / name).write_text(text)
    ended = run("audit", "a")
    assert ended.code == 0
    assert ended.err.startswith(f"warning: {line}")


@pytest.mark.parametrize("text", ["no json", "[]", '{"model_type": "llama"}', '{"estimators": 3}'])
def test_another_programs_config_is_no_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert run_methods(tmp_path).by_policy == {}
