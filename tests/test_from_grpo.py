"""The five steps of docs/from-grpo.md: every block and every command runs, one after the other."""

from __future__ import annotations

import re
import shlex
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("trl")

from stepcredit.cli import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "from-grpo.md"
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.DOTALL)


def test_the_steps_run_and_show_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": __name__}
    said = {}
    for language, block in BLOCK.findall(PAGE.read_text()):
        if language == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(block, names)
            continue
        for line in block.splitlines():
            command = line.removeprefix("$ ").replace("FOLDER", str(names.get("folder")))
            if command.startswith("cat "):
                subprocess.run(command, shell=True, check=True)
            if command.startswith("stepcredit "):
                ended = CliRunner().invoke(app, shlex.split(command)[1:])
                assert ended.exit_code == 0, f"{line}: {ended.output}"
                said[command.split()[1]] = said.get(command.split()[1], "") + ended.output
    assert "responses to one prompt in a step are one group (8 responses)" in said["convert"]
    found = " ".join(said["audit"].split())
    assert "The advantages in the file are those of none of the methods compared" in found
    assert re.search(r"AUC within groups of the step mean .* \(0\.5 is chance\)", found)
    assert "the tokenizer makes tokens of the text" in said["convert"]
    assert re.search(r"^pass: .*(exploitable|undecided)", said["attack"], re.MULTILINE)
    assert "undecided, with" not in said["attack"]  # enough groups for a verdict
    printed = capsys.readouterr().out
    assert "process: arithmetic (grpo does not read it: for the metrics alone)" in printed
    row = r"credit of the made-up responses +outcomes 1, 0, 1; mean advantages"
    assert re.search(row, printed)
    assert "process: arithmetic (weight 0.5)" in printed
