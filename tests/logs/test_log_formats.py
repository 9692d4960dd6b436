"""Each format's rows, in every kind of file; what is left out, and what is said."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.logs.conftest import Convert, advantages, run
from tests.logs.logged_rows import as_asked, as_said, verl

import stepcredit as sc
from stepcredit.errors import FileError
from stepcredit.logs.log_formats import LOG_FORMATS, kind_of_file, name_of_log
from stepcredit.logs.logged_response import RewardColumns
from stepcredit.logs.read_log import read_log

NAN = float("nan")
CHATML = "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n"


SAMPLES = [("1+2?", "3", 1.0), ("1+2?", "4", 0.0), ("3+4?", "7", 1.0), ("3+4?", "8", 0.0)]
LOGS: dict[str, list[dict[str, Any]]] = {
    "verl-rollouts": [
        verl(question, text, score, uid=f"{question}_{at}_0")
        for at, (question, text, score) in enumerate(SAMPLES)
    ],
    "trl-completions": [
        {"step": 3, "prompt": question, "completion": text, "right": score, "advantage": 0.5}
        for question, text, score in SAMPLES
    ],
    "swift-completions": [
        {
            "gen_step": [3, 3],
            "prompt": [CHATML % rows[0][0]] * 2,
            "completion": [text for _, text, _ in rows],
            "Accuracy": [score for *_, score in rows],
        }
        for rows in (SAMPLES[:2], SAMPLES[2:])
    ],
    "verifiers-results": [
        {
            "example_id": at // 2,
            "prompt": as_asked(question),
            "completion": as_said(text),
            "answer": "7",
            "reward": score,
            "task": "sums",
        }
        for at, (question, text, score) in enumerate(SAMPLES)
    ],
    "qwen-eval": [
        {
            "idx": at,
            "question": rows[0][0],
            "gt": "7",
            "code": [text for _, text, _ in rows],
            "pred": [text for _, text, _ in rows],
            "score": [bool(score) for *_, score in rows],
        }
        for at, rows in enumerate((SAMPLES[:2], SAMPLES[2:]))
    ],
    "question-rollouts": [
        {
            "question": rows[0][0],
            "gold": "7",
            "rollouts": [{"text": text, "reward": score} for _, text, score in rows],
        }
        for rows in (SAMPLES[:2], SAMPLES[2:])
    ],
    "slime-samples": [
        {
            "group_index": at // 2,
            "index": at,
            "prompt": CHATML % question,
            "response": text,
            "tokens": [9, 9, 9, at],
            "response_length": 1,
            "label": "7",
            "reward": score,
        }
        for at, (question, text, score) in enumerate(SAMPLES)
    ],
    "messages": [
        {"messages": as_asked(question) + as_said(text), "reward": score}
        for question, text, score in SAMPLES
    ],
}


def write_as(kind: str, rows: list[dict[str, Any]], folder: Path) -> Path:
    path = folder / f"log.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "pretty.json":
        path.write_text(json.dumps(rows, indent=2))
    elif kind == "pretty.jsonl":
        path.write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    else:
        lines = "".join(json.dumps(dict(reversed(row.items()))) + "\n" for row in rows).encode()
        path.write_bytes(gzip.compress(lines) if kind.endswith("gz") else b"\xef\xbb\xbf" + lines)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "pretty.json", "parquet"])
@pytest.mark.parametrize("name", LOGS)
def test_every_format_in_every_kind_of_file(
    name: str, kind: str, convert: Convert, tmp_path: Path
) -> None:
    path = write_as(kind, LOGS[name], tmp_path)
    assert name_of_log(path) == name
    ended = convert(path)
    assert ended.code == 0, ended.said
    assert ended.said == []
    found = [(row["prompt"], row["text"], row["outcome"]) for row in ended.rows]
    assert found == SAMPLES
    first, second, third, fourth = (row["group"] for row in ended.rows)
    assert first == second != third == fourth
    assert advantages(ended.rows, tmp_path) == pytest.approx([0.70710576, -0.70710576] * 2)
    assert [row.get("answer", "7") for row in ended.rows] == ["7"] * 4


def test_objects_over_several_lines(convert: Convert, tmp_path: Path) -> None:
    ended = convert(write_as("pretty.jsonl", LOGS["messages"], tmp_path))
    assert [(row["prompt"], row["text"], row["outcome"]) for row in ended.rows] == SAMPLES


def test_the_old_way_to_name_a_format_and_the_new_one(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_as("jsonl", LOGS["verl-rollouts"], tmp_path)
    expected = convert(path).rows
    assert convert(path, "--from", "verl-rollouts").rows == expected
    out = tmp_path / "old.jsonl"
    assert run("convert", "verl-rollouts", path, "-o", out)[0] == 0
    assert list(sc.read_rows(out)) == expected
    monkeypatch.chdir(tmp_path)
    (tmp_path / "verl-rollouts").mkdir()
    out.unlink()
    assert run("convert", "verl-rollouts", path, "-o", out)[0] == 0
    assert list(sc.read_rows(out)) == expected
    ended = convert(path, "--from", "verl")
    known = ", ".join([*LOG_FORMATS, "gsm8k-solutions"])
    line = f"--from verl: unknown format: expected one of {known}"
    assert (ended.code, ended.said) == (1, [line])
    code, _, err = run("convert", path, path, "-o", out)
    line = f"{path}: convert takes one file or folder, and a format before it\n"
    assert (code, err) == (1, line)


def test_a_folder_of_steps(convert: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    folder.mkdir()
    for step in (10, 2):
        rows = [verl("q", text, 1.0, step=step) for text in ("a", "b")]
        (folder / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = convert(folder)
    assert [row["group"] for row in ended.rows] == ["2/0", "2/0", "10/0", "10/0"]


def test_a_folder_of_packed_logs(convert: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    folder.mkdir()
    (folder / ".hidden.jsonl").write_text("{}")
    write_as("jsonl.gz", LOGS["verl-rollouts"], folder)
    assert len(convert(folder).rows) == 4


def test_the_same_step_in_two_files_is_no_group(convert: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "dump"
    folder.mkdir()
    for name in "ab":
        rows = [verl("q", text, 1.0, step=1) for text in ("a", "b")]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row["group"] for row in convert(folder).rows] == ["1/0", "1/0", "1/1", "1/1"]


def test_steps_that_lie_apart_in_one_file(convert: Convert) -> None:
    rows = [verl("q", f"a{at}", at, step=at % 2) for at in range(4)]
    assert [row["group"] for row in convert(rows).rows] == ["0/0", "1/0", "0/0", "1/0"]


def test_groups_without_an_id_that_may_be_two(convert: Convert) -> None:
    rows = [verl(question, f"a{at}", 1.0) for at, question in enumerate("qqrrqqss")]
    (said,) = convert(rows).said
    assert "the log names no groups" in said
    assert "(2 to 4 responses)" in said
    rows = [verl(question, f"a{at}", 1.0) for at, question in enumerate("qqrrss")]
    assert convert(rows).said == []
    rows = [dict(row, uid=f"{at // 2}_{at}_0") for at, row in enumerate(rows)]
    assert convert(rows).said == []


def test_a_uid_tells_two_groups_of_one_prompt(convert: Convert) -> None:
    rows = [verl("q", f"a{at}", 1.0, uid=f"s{at % 2}_{at}_0") for at in range(4)]
    ended = convert(rows)
    assert (ended.said, [row["group"] for row in ended.rows]) == ([], ["3/0", "3/1"] * 2)


def test_what_is_left_out_is_counted_and_named(convert: Convert, tmp_path: Path) -> None:
    rows = [
        verl("q", "a", 1.0, uid="q_0_0"),
        verl("q", "", 1.0, uid="q_1_0"),
        verl("q", "b", None, uid="q_2_0"),
        verl("q", "c", "right", uid="q_3_0"),
        verl("q", "d", 0.0, uid="q_4_0"),
        verl("r", "e", NAN, uid="r_0_0"),
        verl("r", "f", None, uid="r_1_0"),
        verl("s", "g", float("inf"), uid="s_0_0"),
        verl("s", "", 0.0, uid="s_1_0"),
    ]
    ended = convert(rows)
    log = tmp_path / "log.jsonl"
    assert [(row["group"], row["text"], row["outcome"]) for row in ended.rows] == [
        ("3/0", "a", 1.0),
        ("3/0", "d", 0.0),
        ("3/1", "e", None),
        ("3/1", "f", None),
    ]
    assert [line.removeprefix("warning: ") for line in ended.said] == [
        f"{log}:6: outcome: 2 responses with an unknown reward, as all of their group: "
        "written as null",
        f"{log}:2: text: is empty: a response needs at least one token; left out (2 rows: 2, 9)",
        f"{log}:3: outcome: unknown, but known for others of its group; left out (1 row)",
        f"{log}:4: score: expected a number, got 'right'; left out (1 row)",
        f"{log}:8: score: inf is not a finite number; left out (1 row)",
        "groups that lost responses: 3/0 (2 of 5 left), 3/2 (0 of 2 left)",
    ]


def test_faults_of_many_kinds_are_not_listed_without_end(convert: Convert, tmp_path: Path) -> None:
    rows = [verl("q", f"a{at}", f"grade {at}" if at else 1.0) for at in range(40)]
    ended = convert(rows, "--group-size", "40")
    assert len(ended.said) == 20 + 3
    place = f"{tmp_path / 'log.jsonl'}:22"
    assert ended.said[20] == f"warning: {place}: and 19 rows left out for 19 other reasons"
    assert ended.said[21] == "warning: groups that lost responses: 3/0 (1 of 40 left)"


def test_a_log_of_which_nothing_is_left_is_refused(convert: Convert, tmp_path: Path) -> None:
    ended = convert([verl("q", "", 1.0), verl("q", "", 0.0)])
    line = f"{tmp_path / 'log.jsonl'}:1: text: is empty: a response needs at least one token"
    assert (ended.code, ended.said, ended.rows) == (1, [line], [])


def test_a_torn_last_line_is_left_out(convert: Convert, tmp_path: Path) -> None:
    path = tmp_path / "torn.jsonl"
    whole = json.dumps(verl("q", "a", 1.0))
    path.write_text(f"{whole}\n{whole}\n{whole[:40]}")
    ended = convert(path)
    assert (ended.code, len(ended.rows)) == (0, 2)
    assert f"{path}:3: is not JSON" in ended.said[0]
    assert ended.said[0].endswith("left out (1 row)")


def test_numbers_that_json_lacks_are_no_reason_to_refuse(convert: Convert) -> None:
    rows = [verl("q", "a", 1.0, entropy=NAN, more={"x": [NAN, 1.0]}), verl("q", "b", 0.0)]
    ended = convert(rows)
    assert ended.rows[0]["entropy"] is None
    assert ended.rows[0]["more"] == {"x": [None, 1.0]}
    assert [line.partition("jsonl:")[2] for line in ended.said] == [
        "1: entropy: 1 response with a number that is not finite: written as null",
        "1: more: 1 response with a number that is not finite: written as null",
    ]


@pytest.mark.parametrize("unknown", [None, NAN])
def test_columns_of_trl_with_missing_rewards(
    unknown: float | None, convert: Convert, tmp_path: Path
) -> None:
    rows = [dict(row) for row in LOGS["trl-completions"]]
    for at in (0, 1):
        rows[at] |= {"right": unknown, "other": unknown}
    for at in (2, 3):
        rows[at] |= {"other": 0.5}
    path = tmp_path / "completions_00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    ended = convert(path, "--outcome", "right")
    assert [row["outcome"] for row in ended.rows] == [None, None, 1.0, 0.0]
    pq.write_table(pa.Table.from_pylist(rows[:2], pq.read_schema(path)), path)
    assert [row["outcome"] for row in convert(path, "--outcome", "right").rows] == [None, None]


def test_an_unknown_column_is_named(convert: Convert, tmp_path: Path) -> None:
    ended = convert(LOGS["trl-completions"], "--outcome", "acc")
    numbers = "numbers are step, right, advantage"
    line = f"--outcome acc: no such column in {tmp_path / 'log.jsonl'}: {numbers}"
    assert (ended.code, ended.said) == (1, [line])


def test_numbers_as_text_are_read_and_said(convert: Convert) -> None:
    ended = convert([verl("q", "a", "1.0"), verl("q", "b", "0")])
    assert [row["outcome"] for row in ended.rows] == [1.0, 0.0]
    assert "2 responses with a number written as text: read" in ended.said[0]


def test_filters_of_one_document_are_no_group(convert: Convert) -> None:
    doc = {"question": "3+4?"}
    rows = [
        {
            "doc_id": at,
            "doc": doc,
            "target": "7",
            "resps": [["So 7."]],
            "filter": name,
            "exact_match": score,
        }
        for at in range(2)
        for name, score in (("strict-match", 0.0), ("flexible-extract", 1.0))
    ]
    ended = convert(rows)
    assert [(row["group"], row["outcome"]) for row in ended.rows] == [("0", 0.0), ("1", 0.0)]
    assert "rows of other filters than 'strict-match' hold the same responses" in ended.said[0]


def test_several_responses_of_a_document_are_a_group(convert: Convert) -> None:
    row = {"doc_id": 0, "doc": {}, "target": "7", "resps": [["a", "b"]], "exact_match": 1.0}
    ended = convert([row | {"arguments": [["3+4?", {}]]}])
    found = [(row["group"], row["prompt"], row["outcome"]) for row in ended.rows]
    assert found == [("0", "3+4?", None)] * 2
    assert "its metrics are of all, not of each" in ended.said[0]
    ended = convert([{"doc_id": 0, "doc": {}, "resps": [[["-1.5", "False"]], [["-2.5", "True"]]]}])
    assert (ended.code, "log-likelihoods" in ended.said[0]) == (1, True)


def test_lists_of_other_lengths_are_left_out(convert: Convert) -> None:
    good, bad = LOGS["qwen-eval"][0], LOGS["qwen-eval"][1] | {"score": [True]}
    ended = convert([good, bad])
    assert (len(ended.rows), "score: 1 values, but 2 of code" in ended.said[0]) == (2, True)
    good, bad = LOGS["swift-completions"][0], LOGS["swift-completions"][1] | {"Accuracy": [1.0]}
    ended = convert([good, bad])
    assert "Accuracy: 1 values, but 2 completions" in ended.said[0]


def test_masks_and_tokens_of_slime(convert: Convert) -> None:
    rows = [
        row | {"tokens": [9, 9, 1, 2, 3], "response_length": 3, "loss_mask": [1, 0, 1]}
        for row in LOGS["slime-samples"][:2]
    ]
    for row in convert(rows).rows:
        assert (row["token_ids"], row["loss_mask"]) == ([1, 2, 3], [1, 0, 1])
        assert row["prompt_ids"] == [9, 9]
    ended = convert([rows[0], rows[1] | {"loss_mask": [1, 1]}])
    assert "loss_mask: 2 values, but response_length is 3; left out (1 row)" in ended.said[0]
    ended = convert([rows[0], rows[1] | {"response_length": 6}])
    assert "response_length: 6, but there are 5 tokens; left out (1 row)" in ended.said[0]


def test_standard_input_needs_a_name(tmp_path: Path) -> None:
    code, _, err = run("convert", "-", "-o", tmp_path / "out.jsonl")
    assert (code, err) == (1, "--from: name the format of standard input\n")


def test_a_tools_answer_without_a_mask_is_said(convert: Convert) -> None:
    text = "a\nuser\n<tool_response>\n7\n</tool_response>\nassistant\nb"
    ended = convert([row | {"response": text} for row in LOGS["slime-samples"][:1]])
    assert "tool's answer by its marks, but without a loss_mask: it is trained" in ended.said[0]


def test_what_is_no_log(convert: Convert, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    ended = convert([{"a": 1, "b": 2}])
    line = f"{path}: the fields of no log that is known: it has a, b; --from NAME names the format"
    assert (ended.code, ended.said) == (1, [line])
    ended = convert([{"group": 1, "length": 2}])
    assert ended.said == [f"{path}: is a file of rollouts already"]
    path.write_text("\n")
    with pytest.raises(FileError, match="there are no rollouts in it"):
        name_of_log(path)
    assert kind_of_file(tmp_path / "none.jsonl") is None


def test_a_log_in_python(tmp_path: Path) -> None:
    path = write_as("jsonl", [verl("q", "a", 1.0), verl("q", "", 0.0)], tmp_path)
    with pytest.warns(UserWarning, match=r"log\.jsonl:2: text: is empty.*left out \(1 row\)"):
        rows = list(read_log(path, columns=RewardColumns(format="score")))
    assert [row["format"] for row in rows] == [1.0]
