"""`stepcredit doctor` and `--version`: true figures, and nothing of the user's."""

from __future__ import annotations

import getpass
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.cli.conftest import Run

import stepcredit as sc
from stepcredit.cli.doctor import doctor_lines, without_paths

pytest.importorskip("trl")


def test_the_report_holds_versions_and_nothing_of_the_users(
    run_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "mallory"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "mallory")
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_mallory")
    ended = run_process("doctor", "--tokenizer", str(home / "no-such-model"))
    assert ended.code == 0, ended.err
    report = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert report["stepcredit"] == sc.__version__
    assert report["torch"] == version("torch")
    assert report["trl"] == version("trl")
    assert "TRL's hooks      all 6 hold" in ended.out
    assert "tokenizers       steps are cut as expected" in ended.out
    assert "tokenizer        no-such-model: FAILS: " in ended.out
    for private in ("mallory", "secret", str(tmp_path), getpass.getuser() + "@"):
        assert private not in ended.out


def test_a_missing_hook_and_an_untested_version_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import trl

    monkeypatch.setattr(trl, "__version__", "99.0")
    report = dict(doctor_lines())
    warned = "warning: trl 99.0 is outside the range tested, >=1.16.0,<1.17"
    assert report["TRL's hooks"] == f"all 6 hold; {warned}"
    monkeypatch.setattr(trl, "GRPOTrainer", object)
    report = dict(doctor_lines())
    assert report["TRL's hooks"].startswith("FAILS: EngineError: _calculate_rewards: ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/srv/a/b.py:3: no", "<path>:3: no"),
        ("not in ~/.cache/x or '/data/y z'", "not in <path> or '<path> z'"),
        ("CUDA 12.8 and 3/4 of a/b", "CUDA 12.8 and 3/4 of a/b"),
    ],
)
def test_paths_are_not_shown(text: str, shown: str) -> None:
    assert without_paths(text) == shown


def test_the_version(run: Run) -> None:
    ended = run("--version")
    assert (ended.code, ended.out) == (0, f"stepcredit {sc.__version__}\n")
