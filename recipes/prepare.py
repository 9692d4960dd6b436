"""Data sets as the recipes read them: `python recipes/prepare.py NAME OUTPUT.parquet`.

One file serves TRL and verl: `prompt` (messages), `answer` and further facts are columns, and
verl's `data_source`, `ability`, `reward_model` and `extra_info` stand beside them. Rows come from
the Hub, or from a copy: `--source FILE` (.json, .jsonl, .parquet) or a folder.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from stepcredit.errors import SettingError
from stepcredit.launch.datasets import load_rows
from stepcredit.requires import require
from stepcredit.rewards import last_box

Row = dict[str, Any]
BOXED = r"Please reason step by step, and put your final answer within \boxed{}."
HOPS = """\
Answer the question from the paragraphs. Reason step by step, with a blank line between steps, and \
end with the answer in as few words as possible, in <answer></answer>.

{context}

Question: {question}"""
TERMS, DIGITS = (2, 4), (1, 2)


@dataclass(frozen=True)
class Origin:
    """Where a data set is on the Hub, and how its rows become a recipe's.

    Args:
        hub: name on the Hub; None where the rows are made.
        config, split: which rows there.
        row: a recipe's row of one of theirs; None leaves it out.
    """

    row: Callable[[Mapping[str, Any]], Row | None]
    hub: str | None = None
    config: str | None = None
    split: str = "train"


def recipe_row(
    source: str, ability: str, prompt: list[dict[str, str]], answer: str | None, **facts: Any
) -> Row:
    """A row for both trainers.

    Args:
        source: the data set.
        ability: verl's kind of task.
        prompt: messages.
        answer: the gold answer; None where it is not to be used.
        facts: what else rewards and signals read.
    """
    return {
        "data_source": source,
        "prompt": prompt,
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"answer": answer, **facts},
        "answer": answer,
        **facts,
    }


def maths_row(given: Mapping[str, Any], source: str) -> Row | None:
    """A problem and its answer, that of its solution's last box where it has no other."""
    answer = given.get("answer") or last_box(given["solution"])
    if answer is None:
        return None
    turns = [{"role": "system", "content": BOXED}, {"role": "user", "content": given["problem"]}]
    return recipe_row(source, "math", turns, str(answer))


def deepscaler(given: Mapping[str, Any]) -> Row | None:
    """DeepScaleR's 40,000 problems."""
    return maths_row(given, "deepscaler")


def hard_math(given: Mapping[str, Any]) -> Row | None:
    """MATH's problems of levels 3 to 5."""
    level = str(given["level"]).removeprefix("Level ")
    return maths_row(given, "math") if level in ("3", "4", "5") else None


def math500(given: Mapping[str, Any]) -> Row | None:
    """MATH-500, which no recipe trains on: to evaluate with."""
    return maths_row(given, "math500")


def gsm8k(given: Mapping[str, Any]) -> Row | None:
    """GSM8K's word problems; the gold answer stands behind `####`."""
    _, mark, answer = str(given["answer"]).rpartition("####")
    known = {"problem": given["question"], "answer": answer.strip().replace(",", "")}
    return maths_row(known, "gsm8k") if mark else None


def hotpotqa(given: Mapping[str, Any]) -> Row:
    """A question with its ten paragraphs."""
    context, supporting = _columns(given["context"]), _columns(given["supporting_facts"])
    pairs = zip(context["title"], context["sentences"], strict=True)
    paragraphs = "\n\n".join(f"{title}\n{''.join(said).strip()}" for title, said in pairs)
    text = HOPS.format(context=paragraphs, question=given["question"])
    facts = {"supporting_facts": supporting, "context": context, "question": given["question"]}
    return recipe_row(
        "hotpotqa", "qa", [{"role": "user", "content": text}], given["answer"], **facts
    )


def _columns(given: Any) -> dict[str, list[Any]]:
    """The Hub's columns, of them or of the pairs in HotpotQA's own files."""
    if isinstance(given, Mapping):
        return {name: list(values) for name, values in given.items()}
    second = "sentences" if given and isinstance(given[0][1], list) else "sent_id"
    return {"title": [pair[0] for pair in given], second: [pair[1] for pair in given]}


def sum_row(given: Mapping[str, Any]) -> Row:
    """One of reasoning-gym's chain sums, with what its grader wants."""
    facts = {"question": given["question"], "metadata": _plain(given["metadata"])}
    turns = [{"role": "user", "content": given["question"]}]
    return recipe_row("chain_sum", "arithmetic", turns, given["answer"], **facts)


def worked_sum(given: Mapping[str, Any]) -> Row:
    """A chain sum with a worked solution: what the policy is first taught to write."""
    first, *rest = given["metadata"]["expression"].split()
    total, lines = int(first), []
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        before = total
        total += int(term) if sign == "+" else -int(term)
        lines.append(f"{before} {sign} {term} = {total}")
    text = "\n".join([*lines, f"<answer>{total}</answer>"])
    return {
        "prompt": [{"role": "user", "content": given["question"]}],
        "completion": [{"role": "assistant", "content": text}],
    }


def _plain(metadata: Mapping[str, Any]) -> Row:
    return {name: metadata[name] for name in ("source_dataset", "source_index", "expression")}


def chain_sums(rows: int, seed: int) -> list[Row]:
    """Sums of two to four terms of one or two digits."""
    require("gym", "reasoning_gym")
    import reasoning_gym

    sizes = {"min_terms": TERMS[0], "max_terms": TERMS[1]}
    sizes |= {"min_digits": DIGITS[0], "max_digits": DIGITS[1]}
    return list(reasoning_gym.create_dataset("chain_sum", size=rows, seed=seed, **sizes))


ORIGINS = {
    "deepscaler": Origin(deepscaler, hub="agentica-org/DeepScaleR-Preview-Dataset"),
    "math": Origin(hard_math, hub="DigitalLearningGmbH/MATH-lighteval"),
    "math500": Origin(math500, hub="HuggingFaceH4/MATH-500", split="test"),
    "gsm8k": Origin(gsm8k, hub="openai/gsm8k", config="main"),
    "gsm8k-test": Origin(gsm8k, hub="openai/gsm8k", config="main", split="test"),
    "hotpotqa": Origin(hotpotqa, hub="hotpotqa/hotpot_qa", config="distractor"),
    "hotpotqa-validation": Origin(
        hotpotqa, hub="hotpotqa/hotpot_qa", config="distractor", split="validation"
    ),
    "chain-sums": Origin(sum_row),
    "chain-sums-sft": Origin(worked_sum),
}


def prepared(
    name: str, *, source: str | None = None, rows: int | None = None, seed: int = 0
) -> list[Row]:
    """A recipe's rows.

    Args:
        name: of `ORIGINS`.
        source: a file, folder or another name on the Hub, with the same columns.
        rows: so many, drawn by the seed; None: all, of sums 10,000.
        seed: of the draw, or of the sums.

    Raises:
        SettingError: the data set is not there.
    """
    origin = ORIGINS[name]
    if origin.hub is None:
        given: Iterator[Any] | Dataset = iter(chain_sums(rows or 10_000, seed))
    else:
        given = load_source(source or origin.hub, None if source else origin.config, origin.split)
    found = [row for each in given if (row := origin.row(each)) is not None]
    if rows is not None and origin.hub is not None:
        found = random.Random(f"{name} {seed}").sample(found, min(rows, len(found)))
    return found


def load_source(source: str, config: str | None, split: str) -> Any:
    """Rows of a file, also of a JSON list whose values mix types, of a folder or the Hub."""
    if source.endswith(".json") and Path(source).is_file():
        import json

        return json.loads(Path(source).read_text())
    return load_rows(source, config=config, split=split, setting="--source")


def without_answers(rows: list[Row], share: float, seed: int) -> list[Row]:
    """The rows, of which only a share, drawn by the seed, keeps its gold answer.

    PURE's best model had answers for one prompt in ten and process rewards for all.
    """
    kept = set(random.Random(f"answers {seed}").sample(range(len(rows)), round(share * len(rows))))
    for index, row in enumerate(rows):
        if index not in kept:
            row["answer"] = row["reward_model"]["ground_truth"] = row["extra_info"]["answer"] = None
    return rows


def main() -> None:
    """Prepare a data set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=ORIGINS)
    parser.add_argument("output", help="FILE.parquet or FILE.jsonl")
    parser.add_argument("--source", help="a local copy, or another name on the Hub")
    parser.add_argument("--rows", type=int, help="so many, drawn by the seed")
    parser.add_argument("--answers", type=float, help="share of rows that keep their gold answer")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    try:
        rows = prepared(given.name, source=given.source, rows=given.rows, seed=given.seed)
    except SettingError as error:
        parser.error(str(error))
    if given.answers is not None:
        rows = without_answers(rows, given.answers, given.seed)
    Path(given.output).parent.mkdir(parents=True, exist_ok=True)
    table = Dataset.from_list(rows)
    if given.output.endswith(".parquet"):
        table.to_parquet(given.output)
    else:
        table.to_json(given.output)
    print(f"{len(rows)} rows in {given.output}")


if __name__ == "__main__":
    main()
