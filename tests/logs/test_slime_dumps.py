"""Dumps of slime's rollouts, as torch.save writes them: data is read, code is not run."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.logs.conftest import Convert, run
from torch import nn

from stepcredit.logs.torch_dumps import data_of_dump


def sample(at: int, **more: Any) -> dict[str, Any]:
    """What `Sample.to_dict` of slime 0.3.1 gives, less what nothing reads."""
    fields = {"group_index": at // 2, "index": at, "rollout_id": None, "prompt": f"q{at // 2}"}
    fields |= {"tokens": [1, 2, 30 + at, 4, 5], "response": f"so {at}", "response_length": 3}
    fields |= {"label": "7", "reward": float(at % 2), "loss_mask": [1, 0, 1]}
    return fields | {"remove_sample": False, "status": "completed", "metadata": {}} | more


def dump(path: Path, step: int, samples: list[dict[str, Any]]) -> Path:
    torch.save({"rollout_id": step, "samples": samples}, path)
    return path


def test_a_dump_is_read_with_its_tokens_and_steps(convert: Convert, tmp_path: Path) -> None:
    scores = {"step_ends": [1, 2], "step_scores": [0.5, 0.25]}
    routing = torch.zeros(4, 2, 2, dtype=torch.int32)
    samples = [sample(at, metadata=scores, rollout_routed_experts=routing) for at in range(4)]
    samples[0]["tokens"] = torch.tensor(samples[0]["tokens"])
    ended = convert(dump(tmp_path / "rollout_3.pt", 3, samples))
    assert (ended.code, ended.said) == (0, [])
    assert [row["group"] for row in ended.rows] == ["3/0", "3/0", "3/1", "3/1"]
    assert [row["outcome"] for row in ended.rows] == [0.0, 1.0, 0.0, 1.0]
    first = ended.rows[0]
    assert (first["token_ids"], first["loss_mask"]) == ([30, 4, 5], [1, 0, 1])
    assert (first["step_ends"], first["step_scores"]) == ([1, 2], [0.5, 0.25])
    assert (first["prompt_ids"], first["answer"]) == ([1, 2], "7")
    assert not any("trajectory" in row for row in ended.rows)


def test_samples_of_one_rollout_are_one_trajectory(convert: Convert, tmp_path: Path) -> None:
    samples = [sample(0, rollout_id=8), sample(1, rollout_id=9), sample(0, rollout_id=8)]
    ended = convert(dump(tmp_path / "0.pt", 5, samples))
    assert [row["trajectory"] for row in ended.rows] == [8, 9, 8]
    assert {row["group"] for row in ended.rows} == {"5/0"}


def test_a_folder_without_the_evaluations(convert: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "rollout_data"
    folder.mkdir()
    for step in (0, 10, 9):
        rows = [sample(at, response=f"{step} {at}") for at in range(2)]
        dump(folder / f"{step}.pt", step, rows)
    dump(folder / "eval_9.pt", 9, [sample(at, reward=0.5) for at in range(2)])
    ended = convert(folder)
    assert [row["group"] for row in ended.rows] == ["0/0"] * 2 + ["9/0"] * 2 + ["10/0"] * 2
    (line,) = ended.said
    assert "eval_9.pt:1: is a dump of an evaluation by its name; under another name it is" in line
    code, out, _ = run("audit", folder)
    assert (code, "3 steps (0 to 10)" in " ".join(out.split())) == (0, True)
    code, out, _ = run("audit", folder / "9.pt")
    assert (code, "2 responses in 1 group" in " ".join(out.split())) == (0, True)
    code, _, err = run("validate", folder / "9.pt")
    command = f"`stepcredit convert {folder / '9.pt'} -o rollouts.jsonl`"
    kind = f"it is a file of torch.save: {command} makes rollouts of a trainer's dump"
    assert (code, kind in err, err.count("\n")) == (1, True, 1)


class Payload:
    """Pickled, it is a call that makes a file."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.made}",)


@pytest.mark.parametrize(
    "write", [torch.save, lambda held, path: path.write_bytes(pickle.dumps(held))]
)
def test_code_is_refused_in_one_line_and_not_run(
    convert: Convert, tmp_path: Path, write: Callable[[Any, Path], Any]
) -> None:
    made, path = tmp_path / "made", tmp_path / "0.pt"
    write({"rollout_id": 0, "samples": [sample(0, metadata=Payload(made))]}, path)
    ended = convert(path)
    assert (ended.code, ended.rows, made.exists()) == (1, [], False)
    (line,) = ended.said
    assert line.startswith(f"{path}: ")
    if write is torch.save:
        name = f"{os.system.__module__}.system"
        reason = (
            "expected numbers, texts, lists, objects and tensors alone; no code of a dump is run"
        )
        assert line == f"{path}: holds {name}: {reason}"
    code, _, err = run("audit", path)
    assert (code, err, made.exists()) == (1, line + "\n", False)


@pytest.mark.parametrize(
    ("held", "what"),
    [
        (np.float64(1.0), "holds numpy._core.multiarray.scalar: "),
        (nn.Linear(1, 1), "holds torch.nn.modules.linear.Linear: "),
    ],
)
def test_what_is_no_plain_data_is_named(
    convert: Convert, tmp_path: Path, held: Any, what: str
) -> None:
    ended = convert(dump(tmp_path / "0.pt", 0, [sample(0, reward=held)]))
    assert (ended.code, len(ended.said)) == (1, 1)
    assert ended.said[0].startswith(f"{tmp_path / '0.pt'}: {what}")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02.", b"PK\x03\x04 and no more", None])
def test_a_file_that_is_not_whole(convert: Convert, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "0.pt"
    if content is None:
        content = dump(path, 0, [sample(at) for at in range(100)]).read_bytes()[:-500]
    path.write_bytes(content)
    ended = convert(path)
    assert (ended.code, ended.said) == (1, [f"{path}: is not a whole file of torch.save"])


@pytest.mark.parametrize("flag", [None, "x", 0.5, [1]])
def test_a_mask_of_other_values_is_named(convert: Convert, tmp_path: Path, flag: Any) -> None:
    path = dump(tmp_path / "0.pt", 0, [sample(0), sample(1, loss_mask=[1, flag, 1])])
    ended = convert(path)
    assert any(f"loss_mask: expected 0 or 1, got {flag!r}" in line for line in ended.said)


def test_another_object_is_no_log(convert: Convert, tmp_path: Path) -> None:
    path = tmp_path / "0.pt"
    torch.save([1, 2], path)
    assert convert(path).said == [f"{path}: there are no rollouts in it"]
    assert convert(path, "--from", "slime-samples").code == 1
    torch.save(OrderedDict(weight=torch.zeros(2, 2)), path)
    assert "the fields of no log that is known: it has weight" in convert(path).said[0]
    torch.save({"x": {1}, "y": (2.0, torch.tensor(3))}, path)
    assert data_of_dump(str(path)) == {"x": [1], "y": [2.0, 3]}
