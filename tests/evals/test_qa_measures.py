"""The measures of multi-hop QA, against the official formulas written down again."""

from __future__ import annotations

import random
import re
import string
from pathlib import Path
from typing import Any

import pytest

from stepcredit.evals.eval_tasks import EVAL_TASKS
from stepcredit.evals.problems import load_problems
from stepcredit.evals.sample_grading import qa_measures


def plain(text: str) -> list[str]:
    """Words in lower case, without punctuation and articles."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def prf(found: list[Any], gold: list[Any]) -> tuple[float, float, float]:
    """Precision, recall and F1 of bags."""
    left, shared = list(gold), 0
    for item in found:
        if item in left:
            left.remove(item)
            shared += 1
    if not shared:
        return 0.0, 0.0, 0.0
    precision, recall = shared / len(found), shared / len(gold)
    return precision, recall, 2 * precision * recall / (precision + recall)


def official(answer: str, gold: str, facts: set[Any], gold_facts: set[Any]) -> dict[str, float]:
    """HotpotQA: answer, supporting facts, and products of precision, recall and exact match."""
    closed = {"yes", "no", "noanswer"}
    one, other = " ".join(plain(answer)), " ".join(plain(gold))
    p, r, f1 = prf(plain(answer), plain(gold))
    if one != other and (one in closed or other in closed):
        p = r = f1 = 0.0
    em, hits = float(one == other), len(facts & gold_facts)
    sp, sr = (hits / len(facts) if facts else 0.0), hits / len(gold_facts)
    s_em = float(facts == gold_facts)
    jp, jr = p * sp, r * sr
    return {
        "em": em,
        "f1": f1,
        "support_em": s_em,
        "support_f1": 2 * sp * sr / (sp + sr) if sp + sr else 0.0,
        "joint_em": em * s_em,
        "joint_f1": 2 * jp * jr / (jp + jr) if jp + jr else 0.0,
    }


def varied(answer: str, draw: random.Random) -> str:
    """A way to write an answer, right or not."""
    words = answer.split()
    ways = [answer, f"The {answer}.", answer.upper(), " ".join(words[:-1]) or "yes", "no"]
    return draw.choice([*ways, f"{answer} of Rome", "yes", "something else"])


@pytest.mark.parametrize("name", ["hotpotqa", "2wiki"])
def test_against_hotpotqas_formulas(name: str, shared_dir: Path) -> None:
    file = {"hotpotqa": "hotpotqa_train100", "2wiki": "2wiki_train500"}[name]
    problems = load_problems(EVAL_TASKS[name], shared_dir / "data" / "qa" / f"{file}.json")
    draw = random.Random(0)
    for problem in problems[:100]:
        gold = {tuple(fact) for fact in problem.facts["supporting_facts"]}
        answer = varied(problem.facts["answer"], draw)
        facts = {fact for fact in gold if draw.random() < 0.7}
        facts |= {("Another title", draw.randrange(3))} if draw.random() < 0.4 else set()
        lines = "\n".join(f"{title} | {sentence}" for title, sentence in facts)
        response = f"Because.\n<support>{lines}</support>\n<answer>{answer}</answer>"
        found = qa_measures(EVAL_TASKS[name], [response], [problem.facts])[0]
        assert found == pytest.approx(official(answer, problem.facts["answer"], facts, gold))


def test_musique_takes_the_best_alias(shared_dir: Path) -> None:
    path = shared_dir / "data" / "qa" / "musique_train100.json"
    problems = load_problems(EVAL_TASKS["musique"], path)
    draw = random.Random(1)
    with_aliases = [problem for problem in problems if problem.facts.get("answer_aliases")]
    assert len(with_aliases) > 10
    for problem in with_aliases:
        golds = [problem.facts["answer"], *problem.facts["answer_aliases"]]
        answer = varied(draw.choice(golds), draw)
        support = set(problem.facts["supporting_facts"])
        named = {fact for fact in support if draw.random() < 0.8} | {"77"}
        lines = "\n".join(named)
        response = f"<support>{lines}</support><answer>{answer}</answer>"
        found = qa_measures(EVAL_TASKS["musique"], [response], [problem.facts])[0]
        each = [official(answer, gold, named, support) for gold in golds]
        assert found["em"] == max(one["em"] for one in each)
        assert found["f1"] == pytest.approx(max(one["f1"] for one in each))
        assert found["support_f1"] == pytest.approx(each[0]["support_f1"])


def test_a_response_without_tags_gets_nothing() -> None:
    gold = {"answer": "yes", "supporting_facts": [["T", 0]]}
    found = qa_measures(EVAL_TASKS["hotpotqa"], ["yes, by T | 0"], [gold])[0]
    assert set(found.values()) == {0.0}
