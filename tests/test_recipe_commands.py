"""The commands at the top of recipes, on the rollouts of a smoke run of the same recipe."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("trl")

from stepcredit.cli import app
from stepcredit.launch.recipe import RecipeParser, read_recipe
from stepcredit.launch.script import train_and_save, trainer_of_recipe
from stepcredit.launch.smoke import for_smoke_test

FOLDER = Path(__file__).resolve().parents[1] / "recipes/without-a-prm"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.yaml") if "verl" not in path.stem)
FOR_VERL = sorted(path.stem for path in FOLDER.glob("verl*.yaml"))


class Verdicts(BaseHTTPRequestHandler):
    """A chat model that answers Yes to each step of a response."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        count = int(re.findall(r"Write (\d+) lines", asked["messages"][-1]["content"])[-1])
        tokens = [part for step in range(1, count + 1) for part in (f"{step}", ": ", "Yes", "\n")]
        logprobs = [
            {"token": token, "logprob": -0.1, "top_logprobs": [{"token": token, "logprob": -0.1}]}
            for token in tokens
        ]
        choice = {
            "message": {"role": "assistant", "content": "".join(tokens)},
            "logprobs": {"content": logprobs},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 1, "completion_tokens": len(tokens)}
        self._answer({"choices": [choice], "usage": usage})

    def do_GET(self) -> None:
        self._answer({"data": [{"id": "Qwen/Qwen2.5-32B-Instruct"}]})

    def _answer(self, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def judge_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Verdicts) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def smoke_run(name: str, folder: Path) -> dict[str, Any]:
    """Train a recipe's two steps; its rollouts are in `folder`/rollouts."""
    flags = ["--config", str(FOLDER / f"{name}.yaml")]
    flags += ["--process_signal", "none"] * (name == "judge")
    values, changed = for_smoke_test(RecipeParser().values(flags)[0], folder)
    assert changed
    recipe = read_recipe(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_and_save(trainer_of_recipe(recipe), recipe, None)
    return values


@pytest.mark.parametrize("name", RECIPES)
def test_the_first_two_lines_run_on_what_the_recipe_writes(
    name: str, tmp_path: Path, judge_url: str
) -> None:
    values = smoke_run(name, tmp_path)
    fields = values["process_signal_fields"] or {}
    tiny = {
        f"runs/{name}/rollouts": str(tmp_path / "rollouts"),
        "http://JUDGE_HOST:8000": judge_url,
        "model=Qwen/Qwen2.5-1.5B-Instruct": f"model={fields.get('model')}",
        "--tokenizer Qwen/Qwen2.5-1.5B-Instruct": f"--tokenizer {values['model_name_or_path']}",
        "student=Qwen/Qwen2.5-1.5B-Instruct": f"student={values['model_name_or_path']}",
        "teacher=Qwen/Qwen2.5-7B-Instruct": f"teacher={fields.get('teacher')}",
    }
    run_first_two_lines(name, "rollouts-000000.jsonl", tiny)


def dump_as_verl_does(folder: Path) -> None:
    """Two files of `trainer.rollout_data_dir`: 8 prompts, 4 responses each, some of them right."""
    folder.mkdir()
    for step in (1, 2):
        rows = [
            {
                "input": f"user\n{term} + {step} + 3?\nassistant\n",
                "output": f"{term} + {step} = {term + step + slip}\n\n"
                rf"So \boxed{{{term + step + 3}}}.",
                "gts": str(term + step + 3),
                "score": float(slip == 0),
                "step": step,
                "uid": f"{step}-{term}_{slip}_0",
                "acc": float(slip == 0),
                "outcome": float(slip == 0),
                "format": 1.0,
                "format_ok": True,
                "step_ends": [9, 15],
                "step_scores": [float(slip == 0), 0.5],
            }
            for term in range(8)
            for slip in range(4)
        ]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{step}.jsonl").write_text(lines)


@pytest.mark.parametrize("name", FOR_VERL)
def test_the_first_two_lines_run_on_what_verl_dumps(
    name: str, tmp_path: Path, judge_url: str
) -> None:
    assert f"rollout_data_dir: runs/{name}/rollouts " in (FOLDER / f"{name}.yaml").read_text()
    dump_as_verl_does(tmp_path / "rollouts")
    tiny = {
        f"runs/{name}/rollouts": str(tmp_path / "rollouts"),
        "http://JUDGE_HOST:8000": judge_url,
    }
    run_first_two_lines(name, "1.jsonl", tiny)


def run_first_two_lines(name: str, first_file: str, tiny: dict[str, str]) -> None:
    """Run the commands at the top of a recipe, with names of a small run in place of the real."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()[:2]
    assert lines[0] == f"# stepcredit audit runs/{name}/rollouts"
    assert lines[1].startswith(f"# stepcredit attack runs/{name}/rollouts/{first_file} ")
    for line in lines:
        for real, small in tiny.items():
            line = line.replace(real, small)
        result = CliRunner().invoke(app, shlex.split(line.removeprefix("# stepcredit ")))
        assert result.exit_code == 0, result.output
        assert "pass" in result.output
