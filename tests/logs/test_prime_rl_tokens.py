"""prime-rl's token exports: tokens and advantages, which the audit shows and does not recompute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.logs.conftest import Convert, run

from stepcredit.lab.arithmetic import build_tokenizer


def line(asked: list[int], said: list[int], pay: list[float], **more: Any) -> dict[str, Any]:
    """A line of `TokenExporter` of prime-rl 0.8.0, schema 1; a token with no pay is a tool's."""
    ids, count = asked + said, len(asked) + len(said)
    fields = {"schema_version": 1, "step": 4, "rank": 0, "micro_step": 0, "micro_sequence_idx": 1}
    fields |= {"export_sequence_idx": 1, "env_name": "gsm8k", "token_ids": ids}
    fields |= {"position_ids": [*range(count)]}
    fields |= {"loss_mask": [False] * len(asked) + [value is not None for value in pay]}
    fields |= {"advantages": [0.0] * len(asked) + [value or 0.0 for value in pay]}
    fields |= {"inference_logprobs": [-float(at) for at in range(count)]}
    fields |= {
        "entropy": [0.5] * count,
        "mismatch_kl": [None] * count,
        "rl_weights": [None] * count,
    }
    return fields | more


LINES = [
    line([7, 8], [1, 2, 3], [0.5, None, 0.5]),
    line([7, 8], [4, 5], [-0.5, -0.5]),
    line([9], [6, 7], [0.25, 0.0]),
    line([9], [6], [-0.25]),
]


def test_tokens_and_advantages_are_those_of_the_export(convert: Convert) -> None:
    ended = convert(LINES)
    assert ended.code == 0
    assert any("outcomes are unknown" in line for line in ended.said)
    assert [row["group"] for row in ended.rows] == ["4/0", "4/0", "4/1", "4/1"]
    first = ended.rows[0]
    assert (first["prompt_ids"], first["token_ids"]) == ([7, 8], [1, 2, 3])
    assert (first["loss_mask"], first["advantages"]) == ([1, 0, 1], [0.5, 0.0, 0.5])
    assert first["inference_logprobs"] == [-2.0, -3.0, -4.0]
    assert first["env_name"] == "gsm8k"
    assert not {"outcome", "text", "mismatch_kl", "rl_weights", "rank"} & first.keys()


def test_the_audit_shows_the_advantages_and_compares_them_with_none(tmp_path: Path) -> None:
    folder = tmp_path / "token_exports" / "step_4"
    folder.mkdir(parents=True)
    for rank in (0, 1):
        rows = LINES[2 * rank : 2 * rank + 2]
        (folder / f"rank_{rank}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = tmp_path / "report.json"
    for option in ([], ["--conformance"]):
        code, out, _ = run("audit", folder.parent, "--json", report, *option)
        assert code == 0
        assert "are shown, and not compared" in " ".join(out.split())
        assert "none of the methods" not in out
        checks = json.loads(report.read_text())["checks"]
        found = [each for check in checks.values() for each in check["figures"]]
        figures = {each["name"]: each for each in found}
        size = figures["stored advantages, root mean square without 0"]
        expected = ((4 * 0.25 + 2 * 0.0625) / 6) ** 0.5
        assert (size["value"], size["count"]) == (pytest.approx(expected), 7)
        assert figures["stored advantages, share of 0"]["value"] == pytest.approx(1 / 7)
        assert figures["share of responses with one stored advantage"]["value"] == 0.75


def test_a_tokenizer_gives_the_texts(convert: Convert, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    asked, said = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("2+3=", "5"))
    rows = [line(asked, said, [1.0] * len(said))] * 2
    (row, _) = convert(rows, "--tokenizer", tmp_path / "tokenizer").rows
    assert (row["prompt"], row["text"], row["tokens"]) == ("2+3=", "5", ["5"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"advantages": [0.0, 0.0, None, -0.5]}, "advantages: is null for some token: it was not"),
        ({"advantages": [0.0]}, "advantages: 1 values, but there are 4 tokens"),
        ({"loss_mask": [False] * 4}, "loss_mask: has no trained token"),
    ],
)
def test_a_line_that_is_not_right_is_left_out(
    convert: Convert, changes: dict[str, Any], said: str
) -> None:
    ended = convert([LINES[0], LINES[1] | changes, *LINES[2:]])
    assert len(ended.rows) == 3
    assert any(said in line and "left out (1 row)" in line for line in ended.said)
