"""Rows of benchmarks: the forms of the Hub and of authors' files, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.evals.eval_rows import gsm8k_rows, write_lines

from stepcredit.errors import StepCreditError
from stepcredit.evals.eval_tasks import EVAL_TASKS
from stepcredit.evals.problems import load_problems
from stepcredit.evals.sample_grading import outcome_reward, qa_measures

FILES = {
    "aime24": ("math/aime24.jsonl", 30),
    "amc23": ("math/amc23.jsonl", 40),
    "gsm8k": ("math/gsm8k_test.jsonl", 1319),
    "math500": ("math/math500.jsonl", 500),
    "minerva": ("math/minerva_math.jsonl", 272),
    "olympiadbench": ("math/olympiadbench.jsonl", 675),
    "hotpotqa": ("qa/hotpotqa_train100.json", 100),
    "2wiki": ("qa/2wiki_train500.json", 500),
    "musique": ("qa/musique_train100.json", 100),
}


@pytest.mark.parametrize("name", FILES)
def test_real_rows_are_read_and_their_gold_answers_are_right(name: str, shared_dir: Path) -> None:
    path, count = FILES[name]
    task = EVAL_TASKS[name]
    problems = load_problems(task, shared_dir / "data" / path)
    assert len(problems) == count
    assert len({problem.group for problem in problems}) == count
    some = problems[::7]
    if task.is_qa:
        texts = [gold_response(problem.facts) for problem in some]
        for found in qa_measures(task, texts, [problem.facts for problem in some]):
            assert set(found.values()) == {1.0}
        return
    texts = [rf"So it is $\boxed{{{problem.facts['answer']}}}$." for problem in some]
    assert set(outcome_reward(task)(texts, [problem.facts for problem in some])) == {1.0}


def gold_response(facts: dict[str, Any]) -> str:
    """A response that names the gold facts and answer."""
    lines = [f if isinstance(f, str) else f"{f[0]} | {f[1]}" for f in facts["supporting_facts"]]
    support = "\n".join(lines)
    return f"<support>\n{support}\n</support> <answer>{facts['answer']}</answer>"


def test_the_forms_of_the_hub_and_of_the_authors_are_one(tmp_path: Path) -> None:
    plain = {
        "question": "Who?",
        "answer": "Lilu",
        "context": [["Lilu", ["A spirit.", " Old."]], ["Alu", ["A demon."]]],
        "supporting_facts": [["Lilu", 1]],
    }
    hub = {
        **plain,
        "context": {"title": ["Lilu", "Alu"], "sentences": [["A spirit.", "Old."], ["A demon."]]},
        "supporting_facts": {"title": ["Lilu"], "sent_id": [1]},
    }
    texts = {**plain, **{name: json.dumps(plain[name]) for name in ("context", "supporting_facts")}}
    path = write_lines(tmp_path / "rows.jsonl", [plain, hub, texts])
    found = load_problems(EVAL_TASKS["2wiki"], path)
    assert len({problem.prompt for problem in found}) == 1
    assert found[0].prompt.endswith("Alu\n[0] A demon.\n\nQuestion: Who?")
    assert [problem.facts["supporting_facts"] for problem in found] == [[["Lilu", 1]]] * 3


def test_parquet_and_json_lists(tmp_path: Path) -> None:
    import pandas

    rows = gsm8k_rows(3)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    pandas.DataFrame(rows).to_parquet(tmp_path / "rows.parquet")
    lines = load_problems(EVAL_TASKS["gsm8k"], write_lines(tmp_path / "rows.jsonl", rows))
    for name in ("rows.json", "rows.parquet"):
        assert load_problems(EVAL_TASKS["gsm8k"], tmp_path / name) == lines
    assert load_problems(EVAL_TASKS["gsm8k"], tmp_path / "rows.json", limit=2) == lines[:2]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("aime24", "025", "025"),
        ("aime25", 70, "70"),
        ("amc23", 27.0, "27"),
        ("gsm8k", "1,000 + 200\n#### 1,200", "1,200"),
        ("minerva", "So \\boxed{1.6} cm", "1.6"),
        ("olympiadbench", ["$2$", "$-2$"], "$2$, $-2$"),
    ],
)
def test_gold_answers_of_each_set(name: str, value: Any, expected: str, tmp_path: Path) -> None:
    task = EVAL_TASKS[name]
    path = write_lines(tmp_path / "r.jsonl", [{"question": "?", task.answer[0]: value}])
    assert load_problems(task, path)[0].facts["answer"] == expected


REFUSED = {
    "no question": ("math500", {"answer": "1"}, "problem: missing: math500 needs it (or question)"),
    "no answer": ("aime24", {"problem": "?"}, "answer: missing: aime24 needs it"),
    "no ####": (
        "gsm8k",
        {"question": "?", "answer": "18"},
        "answer: expected an answer behind ####, got '18'",
    ),
    "no integer": (
        "aime25",
        {"problem": "?", "answer": "1/2"},
        "answer: expected a whole number from 0 to 999, got '1/2'",
    ),
    "no text": ("math500", {"problem": 5, "answer": "1"}, "problem: expected a text, got '5'"),
    "no object": ("math500", [5], "expected an object, got [5]"),
    "no passages": ("hotpotqa", {"question": "?", "answer": "a"}, "context: missing"),
    "no evidence": (
        "hotpotqa",
        {"question": "?", "answer": "a", "context": [["T", ["s"]]]},
        "supporting_facts: expected [title, sentence] pairs or titles, got None",
    ),
    "no paragraphs": (
        "musique",
        {"question": "?", "answer": "a"},
        "paragraphs: expected paragraphs with idx, paragraph_text, title, got None",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_row_is_one_line_with_its_place(name: str, tmp_path: Path) -> None:
    task, row, line = REFUSED[name]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(StepCreditError) as error:
        load_problems(EVAL_TASKS[task], path)
    assert str(error.value) == f"{path}:1: {line}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    task = EVAL_TASKS["gsm8k"]
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "object.json").write_text("{}")
    lines = {
        "none.jsonl": ": no such file or directory",
        "empty.jsonl": ": holds no problem",
        "bad.jsonl": ":1: is not JSON: Expecting property name enclosed in double quotes",
        "object.json": ": expected a list of rows",
        "rows.csv": ": expected a file .jsonl, .json, .parquet",
    }
    for name, expected in lines.items():
        with pytest.raises(StepCreditError) as error:
            load_problems(task, tmp_path / name)
        assert str(error.value).startswith(f"{tmp_path / name}{expected}")


def test_the_hub_is_asked_for_the_declared_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(hub: str, config: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((hub, config, split))
        if hub.startswith("math-ai"):
            raise ConnectionError("offline mode is enabled\nmore")
        return gsm8k_rows(2)

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("stepcredit.evals.problems.require", lambda *_: None)
    assert len(load_problems(EVAL_TASKS["gsm8k"])) == 2
    assert asked == [("openai/gsm8k", "main", "test")]
    with pytest.raises(StepCreditError) as error:
        load_problems(EVAL_TASKS["aime25"])
    line = "math-ai/aime25: offline mode is enabled; --file aime25=PATH reads a local copy"
    assert str(error.value) == line
