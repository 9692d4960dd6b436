"""The recipes for TRL: every key is known, each takes its steps, and its data can be made."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest
import yaml
from tests.loading import module_of

pytest.importorskip("trl")

from accelerate.commands.config.config_args import load_config_from_file
from datasets import Dataset
from trl.scripts.sft import make_parser

from stepcredit.launch.datasets import load_rows, with_named_columns, with_prompts
from stepcredit.launch.recipe import RecipeParser, read_recipe
from stepcredit.launch.script import train_from_flags

FOLDER = Path(__file__).resolve().parents[1] / "recipes"
memory_table = module_of(FOLDER / "memory_table.py")
RECIPES = sorted(
    path
    for path in FOLDER.glob("*/*.yaml")
    if not path.name.startswith("verl") and path.name != "sft.yaml"
)
JUDGED = "without-a-prm/judge.yaml"
WITHOUT_SIGNAL = ["--process_signal", "none"]
"""No tiny model gives verdicts."""
BASELINES = [
    ("pass-maths/trl.yaml", ["--method", "grpo"]),
    ("pass-maths/trl.yaml", ["--method", "grpo-process"]),
    ("pass-maths/trl.yaml", ["--fields", '{"chunks": "tokens"}']),
    ("pass-qa/opd.yaml", ["--fields", '{"k": 0, "chunks": "tokens"}']),
    ("pure/prm-vr.yaml", ["--method", "pass"]),
    ("self-distillation/sibling.yaml", ["--method", "grpo", "--process_signal", "none"]),
    ("smollm2/trl.yaml", ["--method", "grpo"]),
]


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    """`recipes/prepare.py`."""
    return module_of(FOLDER / "prepare.py")


def test_there_are_as_many_as_are_told() -> None:
    assert [named(path) for path in RECIPES] == [
        "pass-maths/trl-1.5b.yaml",
        "pass-maths/trl.yaml",
        "pass-qa/gopd.yaml",
        "pass-qa/opd.yaml",
        "pure/prm-vr.yaml",
        "pure/prm.yaml",
        "pure/vr.yaml",
        "self-distillation/answer.yaml",
        "self-distillation/sibling.yaml",
        "smollm2/trl.yaml",
        "tips/trl.yaml",
        "without-a-prm/answer-progress.yaml",
        "without-a-prm/arithmetic.yaml",
        "without-a-prm/judge.yaml",
        "without-a-prm/teacher.yaml",
    ]


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_every_key_is_accepted(path: Path) -> None:
    values, notes = RecipeParser().values(["--config", str(path)])
    given = yaml.safe_load(path.read_text())
    assert notes == ()
    training = read_recipe(values | {"use_cpu": True, "bf16": False}).training
    assert training.method == given["method"]
    accumulated = training.gradient_accumulation_steps
    assert training.save_steps % (training.steps_per_generation // accumulated) == 0
    assert training.per_device_train_batch_size % training.num_generations in (0, 4)
    assert training.loss_type == "dapo"
    assert training.save_strategy == "no" or training.save_total_limit == 2
    assert training.vllm_enable_sleep_mode == training.use_vllm


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_each_is_evaluated_on_rows_that_it_does_not_train_on(path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    assert given["eval_strategy"] == "steps"
    assert given["eval_steps"] > 0
    held_out = given.get("eval_dataset_name"), given["dataset_test_split"]
    if held_out[0] is None:
        assert (given["dataset_train_split"], held_out[1]) == ("train[:2744]", "train[2744:]")
    assert held_out[0] != given["dataset_name"]
    gpus = memory_table.MACHINES.get(memory_table.name_of(path), memory_table.Machine()).gpus
    assert gpus * given["per_device_eval_batch_size"] % given["num_generations_eval"] == 0


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_each_starts_and_takes_its_steps(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = steps_of(path, WITHOUT_SIGNAL if named(path) == JUDGED else [], capfd)
    changed = {line.split()[1].rstrip(":") for line in told if line.startswith("smoke: ")}
    assert {"model_name_or_path", "dataset_name", "max_steps"} <= changed
    kept = {"method", "fields", "rewards", "reward_fields", "splitter", "beta"}
    assert not changed & (kept | {"num_generations", "learning_rate", "loss_type", "temperature"})


@pytest.mark.parametrize(("name", "flags"), BASELINES)
def test_a_baseline_starts_by_one_flag(
    name: str, flags: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    steps_of(FOLDER / name, flags, capfd)


def steps_of(path: Path, flags: list[str], capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What a recipe prints that is tried, did its two steps, and credited what it sampled."""
    code = train_from_flags(["--config", str(path), "--smoke", *flags])
    shown = capfd.readouterr()
    assert code == 0, shown.err[-2000:]
    assert re.search(r"^2 steps; model in ", shown.out, re.MULTILINE)
    norms = re.findall(r"'grad_norm': '([^']+)'", shown.out)
    assert len(norms) == 2
    assert all(float(norm) > 0 for norm in norms)
    credited = re.fullmatch(
        r"smoke: (\d+) of (\d+) responses had a nonzero advantage", shown.out.splitlines()[-1]
    )
    assert credited is not None
    assert 0 < int(credited[1]) <= int(credited[2])
    means = dict(re.findall(r"'rewards/(\w+)/mean': '([^']+)'", shown.out))
    assert 0 < float(means["accuracy"]) < 1
    assert float(means.get("format", 1)) > 0
    assert "'stepcredit/zero_advantage_group_share'" in shown.out
    return shown.out.splitlines()


def test_the_sft_is_trls_own() -> None:
    path = FOLDER / "smollm2/sft.yaml"
    given = yaml.safe_load(path.read_text())
    known = {action.dest for action in make_parser()._actions}
    assert set(given) <= known
    flags = ["--config", str(path), "--use_cpu", "true", "--bf16", "false"]
    _, training, model, rows = make_parser().parse_args_and_config(flags)
    assert (training.max_steps, model.model_name_or_path) == (100, "models/smollm2")
    assert rows.datasets[0].data_files == "data/chain-sums-sft.jsonl"


def test_accelerate_reads_the_shards_config() -> None:
    read = load_config_from_file(str(FOLDER / "fsdp.yaml"))
    assert (read.num_processes, read.fsdp_config["fsdp_version"]) == (8, 2)


@pytest.mark.parametrize("folder", sorted({path.parent for path in RECIPES}), ids=lambda p: p.name)
def test_readmes_name_what_is_there(folder: Path, prepare: ModuleType) -> None:
    text = (folder / "README.md").read_text()
    assert len(text.splitlines()) == 3
    for path in re.findall(r"(?:recipes|examples)/[\w./-]+\.(?:py|yaml)", text):
        assert (FOLDER.parent / path).is_file(), path
    for path in folder.glob("*.yaml"):
        assert path.stem in text
    made = dict(re.findall(r"prepare\.py ([\w-]+) ([\w/.-]+)", text))
    assert set(made) <= set(prepare.ORIGINS)
    read = [yaml.safe_load(path.read_text()) for path in RECIPES if path.parent == folder]
    wanted = {each["dataset_name"] for each in read}
    wanted |= {each["eval_dataset_name"] for each in read if "eval_dataset_name" in each}
    assert wanted <= set(re.findall(r"data/[\w.-]+", text))


def test_flags_of_the_readmes_change_what_they_name_alone() -> None:
    tried = 0
    for folder in sorted({path.parent for path in RECIPES}):
        text = (folder / "README.md").read_text()
        for key, flag in re.findall(r"--(\w*fields) '(\{.*?\})'", text):
            command = text[: text.index(flag)]
            path = FOLDER.parent / re.findall(r"--config (recipes/\S+yaml)", command)[-1]
            before = yaml.safe_load(path.read_text())[key]
            values, notes = RecipeParser().values(["--config", str(path), f"--{key}", flag])
            assert values[key] == {**before, **json.loads(flag)}
            assert len(notes) == bool(before.keys() - json.loads(flag).keys())
            tried += 1
    assert tried >= 4


def test_maths_rows_serve_both_trainers(prepare: ModuleType, shared_dir: Path) -> None:
    source = str(shared_dir / "data/math/math500.jsonl")
    rows = prepare.prepared("deepscaler", source=source)
    assert len(rows) == 500
    first = rows[0]
    assert [turn["role"] for turn in first["prompt"]] == ["system", "user"]
    assert first["reward_model"] == {"style": "rule", "ground_truth": first["answer"]}
    assert first["extra_info"] == {"answer": first["answer"]}
    held_out = prepare.prepared("math500", source=source)
    assert [row["prompt"] for row in held_out] == [row["prompt"] for row in rows]
    hard = prepare.prepared("math", source=source)
    levels = [row["level"] for row in load_rows(source)]
    assert len(hard) == sum(level >= 3 for level in levels)
    assert prepare.prepared("math", source=source, rows=7, seed=1) != hard[:7]
    drawn = [prepare.prepared("math", source=source, rows=7, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    tenth = prepare.without_answers(hard, 0.1, seed=0)
    known = [row["answer"] is not None for row in tenth]
    assert sum(known) == round(0.1 * len(tenth))
    assert known == [row["extra_info"]["answer"] is not None for row in tenth]


def test_word_problems_have_the_number_behind_the_mark(
    prepare: ModuleType, shared_dir: Path
) -> None:
    from stepcredit.rewards import reward

    source = str(shared_dir / "data/math/gsm8k_test.jsonl")
    rows = prepare.prepared("gsm8k-test", source=source, rows=50)
    golds = {row["question"]: row["answer"] for row in load_rows(source)}
    for row in rows:
        solution = golds[row["prompt"][1]["content"]]
        assert solution.replace(",", "").endswith(f"#### {row['answer']}")
    texts = [rf"So \boxed{{{row['answer']}}}." for row in rows]
    assert reward("maths")(texts, rows) == [1.0] * 50


def test_a_search_agent_reads_the_question_alone(prepare: ModuleType, shared_dir: Path) -> None:
    source = str(shared_dir / "data/qa/hotpotqa_train100.json")
    rows = Dataset.from_list(prepare.prepared("hotpotqa", source=source, rows=5))
    recipe = yaml.safe_load((FOLDER / "tips/trl.yaml").read_text())
    named_rows = with_named_columns(rows, recipe["columns"], "rows")
    asked = with_prompts(named_rows, template=recipe["prompt_template"])
    for row in asked:
        (turn,) = row["prompt"]
        assert turn["content"].endswith(f"Question: {row['question']}")
        assert len(turn["content"]) < 200 + len(row["question"])
        assert row["answer"]


def test_the_search_tool_asks_a_retrieval_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Retrieval(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            documents = [{"document": {"contents": text}, "score": 0.5} for text in "ab"]
            body = json.dumps({"result": [documents]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    module = module_of(FOLDER / "tips/search.py")
    with HTTPServer(("127.0.0.1", 0), Retrieval) as server:
        Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("SEARCH_URL", f"http://127.0.0.1:{server.server_port}/retrieve")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert module.search("who?") == "a\n\nb"
    assert asked == [{"queries": ["who?"], "topk": 3, "return_scores": True}]


def test_hops_rows_hold_what_rewards_and_signals_read(
    prepare: ModuleType, shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(shared_dir / "data/qa/hotpotqa_train100.json")
    out = tmp_path / "made/hotpotqa.parquet"
    flags = ["prepare.py", "hotpotqa", str(out), "--source", source, "--rows", "20"]
    monkeypatch.setattr("sys.argv", flags)
    prepare.main()
    rows = load_rows(str(out))
    assert len(rows) == 20
    first = rows[0]
    (turn,) = first["prompt"]
    assert turn["content"].endswith(f"Question: {first['question']}")
    assert first["context"]["sentences"][0][0].strip() in turn["content"]
    assert set(first["supporting_facts"]["title"]) <= set(first["context"]["title"])
    assert first["reward_model"]["ground_truth"] == first["answer"]


def test_sums_are_worked_out_right(prepare: ModuleType) -> None:
    pytest.importorskip("reasoning_gym")
    from stepcredit.rewards import reward
    from stepcredit.signals import Response, splitter
    from stepcredit.signals.signal_registry import signal

    rows = prepare.prepared("chain-sums", rows=50, seed=3)
    worked = prepare.prepared("chain-sums-sft", rows=50, seed=3)
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in worked]
    texts = [row["completion"][0]["content"] for row in worked]
    assert reward("reasoning-gym")(texts, rows) == [1.0] * 50
    assert reward("format", template="qa-tags")(texts) == [1.0] * 50
    responses = [Response.of_text("?", text) for text in texts]
    scores = signal("arithmetic").scores(splitter("newline")(responses))
    terms = [(len(row["metadata"]["expression"].split()) + 1) // 2 for row in rows]
    assert scores == [[1.0] * (count - 1) + [0.5] for count in terms]


def test_a_source_that_is_not_there_is_one_line(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["prepare.py", "math", "out.parquet", "--source", "no/math.jsonl"]
    monkeypatch.setattr("sys.argv", flags)
    with pytest.raises(SystemExit) as refused:
        prepare.main()
    assert refused.value.code == 2
    line = "--source: no such file or folder: no/math.jsonl"
    assert capsys.readouterr().err.splitlines()[-1].endswith(line)
