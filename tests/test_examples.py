"""The examples run, on a policy that has learned nothing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest
from tests.loading import module_of

pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[1]


def test_plain_loop_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stepcredit.lab.model import build_model
    from stepcredit.lab.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    build_model(tokenizer).save_pretrained(tmp_path)
    example = module_of(ROOT / "examples/plain_loop.py")
    monkeypatch.setattr(example, "warm_start", lambda *_: tmp_path)
    example.main(updates=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("update")]
    assert len(lines) == 2


def test_the_anchor_does_nothing_twice_and_reads_its_runs(tmp_path: Path) -> None:
    anchor = module_of(ROOT / "examples/smollm2_anchor.py")
    count = tmp_path / "count"
    note = [sys.executable, "-c", f"open({str(count)!r}, 'a').write('x')"]
    for _ in range(2):
        anchor.once(tmp_path / "run" / ".done", note)
    assert count.read_text() == "x"
    with pytest.raises(SystemExit, match="the same command continues"):
        anchor.once(tmp_path / "other" / ".done", [sys.executable, "-c", "raise SystemExit(3)"])
    assert not (tmp_path / "other" / ".done").exists()
    first, last = (
        {anchor.ACCURACY: accuracy, anchor.LENGTH: length}
        for accuracy, length in ((0.25, 40.0), (0.5, 42.0))
    )
    history = [first, {"step_time": 2.0}, {"step_time": 4.0}, last]
    (tmp_path / "run" / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    found = anchor.evaluations(tmp_path / "run")
    assert found == [{"pass_at_1": 0.25, "length": 40.0}, {"pass_at_1": 0.5, "length": 42.0}]
    assert anchor.seconds_per_step(tmp_path / "run") == 3.0
    given = {"folder": tmp_path, "sft_steps": 10, "steps": 4, "prompts": 2, "sums": 8}
    asked = argparse.Namespace(**given, learning_rate=1e-5)
    kept = anchor.kept_settings(asked)
    assert kept == anchor.kept_settings(asked)
    assert set(kept) == set(anchor.SETTINGS)
    asked.learning_rate = 2e-5
    with pytest.raises(SystemExit, match="begun with another learning_rate; give another folder"):
        anchor.kept_settings(asked)


def test_the_attack_on_the_lab_prints_verdicts_and_confusion_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from stepcredit.lab.model import build_model
    from stepcredit.lab.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    build_model(tokenizer).save_pretrained(tmp_path)
    example = module_of(ROOT / "examples/attack_lab.py")
    example.main(ROOT / "evidence/study.sqlite", str(tmp_path), prompts=2)
    printed = capsys.readouterr().out
    assert sum("; in training: of 3 seeds" in line for line in printed.splitlines()) == 5 * 4
    assert printed.count("20 cells of signal and method with known runs") == 3
