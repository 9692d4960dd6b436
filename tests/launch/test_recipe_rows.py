"""A recipe's rows: where they come from, which split they are, and how prompts are written."""

from __future__ import annotations

import pytest

pytest.importorskip("trl")

from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer

from stepcredit.errors import SettingError
from stepcredit.launch.datasets import (
    check_split,
    load_rows,
    with_named_columns,
    with_prompts,
    within_length,
)
from stepcredit.launch.tiny_models import save_language_model

ROWS = [{"problem": f"{n} + 1 =", "gold": {"value": str(n + 1)}, "id": n} for n in range(1, 7)]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return save_language_model(tmp_path_factory.mktemp("policy"))


def lookup(key: str) -> str:
    """Look a key up.

    Args:
        key: what to look up.
    """
    return key


def test_rows_come_from_files_and_folders(tmp_path):
    rows = Dataset.from_list(ROWS)
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_json(tmp_path / "rows.jsonl.gz", compression="gzip")
    (tmp_path / "shards").mkdir()
    rows.to_json(tmp_path / "shards/train.jsonl")
    rows.save_to_disk(tmp_path / "saved")
    DatasetDict(train=rows, test=rows.select([0])).save_to_disk(tmp_path / "both")
    for name in ("rows.parquet", "rows.jsonl.gz", "shards", "saved", "both"):
        assert load_rows(str(tmp_path / name)).to_list() == ROWS
    assert load_rows(str(tmp_path / "both"), split="test").to_list() == ROWS[:1]
    assert load_rows(str(tmp_path / "rows.parquet"), split="train[:2]").to_list() == ROWS[:2]
    with pytest.raises(SettingError, match="no split 'dev', there are: train, test"):
        load_rows(str(tmp_path / "both"), split="dev")
    (tmp_path / "rows.txt").write_text("a")
    with pytest.raises(SettingError) as refused:
        load_rows(str(tmp_path / "rows.txt"), setting="eval_dataset_name")
    known = ".json, .jsonl, .parquet, .csv"
    reason = f"eval_dataset_name: {tmp_path}/rows.txt: expected one of {known}"
    assert str(refused.value) == reason


def test_prompts_are_conversations_or_texts():
    rows = with_named_columns(
        Dataset.from_list(ROWS), {"prompt": "problem", "answer": "gold.value"}, ""
    )
    assert rows[1]["answer"] == "3"
    user = {"role": "user", "content": "Sum 2, 2 + 1 = {}"}
    asked = with_prompts(rows, system="Add.", template="Sum {id}, {prompt} {}")
    assert asked[1]["prompt"] == [{"role": "system", "content": "Add."}, user]
    assert with_prompts(rows)[0]["prompt"] == [{"role": "user", "content": "1 + 1 ="}]
    assert with_prompts(rows, chat=False)[0]["prompt"] == "1 + 1 ="
    assert with_prompts(rows, chat=False, template="<{prompt}>")[0]["prompt"] == "<1 + 1 =>"
    messages = Dataset.from_list([{"prompt": [user]}])
    assert with_prompts(messages, system="Add.")[0]["prompt"][0]["content"] == "Add."
    again = with_prompts(with_prompts(messages, system="Add."), system="Subtract.")
    assert [turn["content"] for turn in again[0]["prompt"]] == ["Add.", user["content"]]
    with pytest.raises(SettingError, match="prompt_template: the prompts are already messages"):
        with_prompts(messages, template="{prompt}")


def test_long_prompts_are_left_out(policy):
    tokenizer = AutoTokenizer.from_pretrained(policy)
    rows = Dataset.from_list([{"prompt": "12"}, {"prompt": "1234"}])
    assert within_length(rows, tokenizer, 2).to_list() == [{"prompt": "12"}]
    assert within_length(rows, tokenizer, None) is rows
    turns = [{"role": "user", "content": "12"}]
    written = "<|im_start|>user\n12<|im_end|>\n<|im_start|>assistant\n"
    length = len(tokenizer(written)["input_ids"])
    asked = Dataset.from_list([{"prompt": turns}])
    assert len(within_length(asked, tokenizer, length)) == 1
    with pytest.raises(SettingError, match="each of the 1 prompts has more than"):
        within_length(asked, tokenizer, length - 1)


def test_prompts_are_measured_with_the_tools_that_the_policy_gets(policy):
    """A tool's schema stands in the prompt, so that a prompt alone is too short a measure."""
    tokenizer = AutoTokenizer.from_pretrained(policy)
    tokenizer.chat_template = (
        "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}"
        "{% for turn in messages %}{{ turn.content }}{% endfor %}"
    )
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "12"}]}])
    assert len(within_length(rows, tokenizer, 2)) == 1
    with pytest.raises(SettingError, match="each of the 1 prompts has more than 2 tokens"):
        within_length(rows, tokenizer, 2, tools=[lookup])


@pytest.mark.parametrize("saved", ["rows.jsonl", "one", "both"])
def test_a_part_of_a_split_is_that_part(tmp_path, saved):
    rows = Dataset.from_list(ROWS)
    rows.to_json(tmp_path / "rows.jsonl")
    rows.save_to_disk(tmp_path / "one")
    DatasetDict(train=rows, test=rows.select([0])).save_to_disk(tmp_path / "both")
    name = str(tmp_path / saved)
    assert load_rows(name, split="train[:2]").to_list() == ROWS[:2]
    assert load_rows(name, split="train[50%:]").to_list() == ROWS[3:]


@pytest.mark.parametrize("saved", ["rows.jsonl", "one"])
@pytest.mark.parametrize(
    ("setting", "way_out"),
    [("dataset_test_split", ", or name an eval_dataset_name"), ("dataset_train_split", "")],
)
def test_what_is_one_split_has_no_other(tmp_path, saved, setting, way_out):
    """All its rows would be taken, and an evaluation would be on the rows of the training."""
    rows = Dataset.from_list(ROWS)
    rows.to_json(tmp_path / "rows.jsonl")
    rows.save_to_disk(tmp_path / "one")
    name = str(tmp_path / saved)
    check_split(name, "train[50%:]", setting)
    for split in ("test", "validation[:10]"):
        with pytest.raises(SettingError) as refused:
            check_split(name, split, setting)
        line = f"{setting}: {name} is one split, 'train', and has no {split!r}: name a part of "
        assert str(refused.value) == f"{line}'train', such as 'train[90%:]'{way_out}"


def test_a_dataset_of_several_splits_is_not_refused(tmp_path):
    rows = Dataset.from_list(ROWS)
    DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "both")
    check_split(str(tmp_path / "both"), "test", "dataset_test_split")
    check_split("org/name", "test", "dataset_test_split")
