"""Sums in running text: what is read, what is left alone, and how often either goes wrong."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.work import assert_linear

from stepcredit.signals.programs import assertions
from stepcredit.signals.programs.assertions import is_stated
from stepcredit.signals.programs.checked import Arithmetic
from stepcredit.signals.programs.equations import annotated_equations, holds
from stepcredit.signals.programs.plain_spelling import spelled_plainly
from stepcredit.signals.programs.written_sums import written_equations
from stepcredit.signals.responses import Response
from stepcredit.signals.splitting import Newline

RIGHT, WRONG, UNKNOWN = 1.0, 0.0, 0.5
READ: dict[str, list[tuple[float, str]]] = {
    "remainders": [
        (RIGHT, "29 ÷ 6 = 4 R5"),
        (RIGHT, "29 / 6 = 4 r 5"),
        (RIGHT, "29 / 6 = 4, remainder 5"),
        (RIGHT, "29 / 6 = 4 (remainder: 5)"),
        (RIGHT, r"$29 \div 6 = 4$ R $5$"),
        (RIGHT, r"$29 \div 6 = 4 \text{ with a remainder of } 5$"),
        (RIGHT, r"29 \div 6 = 4 \ldots 5"),
        (RIGHT, "29÷6=4……5"),
        (RIGHT, "29÷6=4余5"),
        (RIGHT, "29除以6：29÷6=4，余数为5"),
        (RIGHT, "29 / 6 = 4 boxes with 5 apples left over."),
        (RIGHT, "29 / 6 = 4 full boxes"),
        (RIGHT, "29 / 6 = 4 with a remainder."),
        (RIGHT, "4 ÷ 9 = 0 remainder 4"),
        (RIGHT, "29 / 6 = 4 with remainder 29 - 4*6 = 5."),
        (WRONG, "29 / 6 = 4 remainder 4"),
        (WRONG, "29 ÷ 6 = 5 R 5"),
        (WRONG, "29÷6=4……4"),
        (WRONG, "29÷6=5余5"),
        (WRONG, "29 / 6 = 5 full boxes"),
        (WRONG, "29 / 6 = 4 boxes"),
    ],
    "smaller units": [
        (RIGHT, "1375 / 100 = 13 dollars and 75 cents"),
        (RIGHT, "7 / 2 = 3 hours and 30 minutes"),
        (RIGHT, "77 / 12 = 6 feet 5 inches"),
        (RIGHT, "3.50 - 3.16 = 34 cents"),
        (WRONG, "1375 / 100 = 14 dollars and 75 cents"),
        (WRONG, "7 / 2 = 3 hours and 20 minutes"),
        (WRONG, "3.50 - 3.16 = 35 cents"),
    ],
    "parts": [
        (RIGHT, r"\frac{1}{2} of 8 = 4"),
        (RIGHT, r"\frac{1}{3} \text{ of } 27 = 9"),
        (RIGHT, "20% of 50 = 10"),
        (RIGHT, "Half of 10 is 10/2 = 5"),
        (RIGHT, "a total of 3 + 4 = 7"),
        (WRONG, r"\frac{1}{3} \text{ of } 27 = 8"),
        (UNKNOWN, "Half of 10 + 2 = 6"),
        (UNKNOWN, "twice 3 + 4 = 14"),
        (UNKNOWN, "A third of 12 + 3 = 5"),
        (UNKNOWN, "3 / 24 = 1/8 of 2"),
        (UNKNOWN, "60的1/3=20"),
    ],
    "functions": [
        (RIGHT, "f''(2) = 12 - 4 = 8"),
        (RIGHT, r"y'(1) = 5 + \frac{8}{1} = 13"),
        (RIGHT, "P(A) = 1 - 1/4 = 3/4"),
        (RIGHT, r"\binom{5}{2} = 5 \cdot 4 / 2 = 10"),
        (RIGHT, r"\sqrt{16} + 2 = 4 + 2 = 6"),
        (RIGHT, "3^2 + 4^2 = 9 + 16 = 25"),
        (WRONG, "f(2) = 12 - 4 = 9"),
        (UNKNOWN, r"\log_{3} 27 = 1 + 2 = 3"),
        (UNKNOWN, r"\log_2 8 = 1 + 2 = 3"),
        (UNKNOWN, r"2 \ln 10 = 4 + 0.6"),
        (UNKNOWN, r"\log_{1/3} 9 + 5 = -2 + 5 = 3"),
        (UNKNOWN, r"\Delta m = -2.5 \log \left(1+\frac{16}{4}\right)=-1.75"),
        (UNKNOWN, r"y = 5 \times 1 + 8 \ln 1 = 5 + 0 = 5"),
    ],
    "products": [
        (UNKNOWN, "305 - 296 = 3 d"),
        (UNKNOWN, "305 - 296 = 3d"),
        (UNKNOWN, r"305 - 296 = 3 \pi"),
        (UNKNOWN, r"9 = 2 \sqrt{25}"),
        (UNKNOWN, r"2500 = 144 + 2 \sum_{i<j} a_i a_j"),
        (UNKNOWN, r"100 = 10 + 2 \int_0^1 f"),
        (UNKNOWN, r"8 = \frac{9}{4} a"),
        (UNKNOWN, r"6 = \frac{1}{2} |D|"),
        (UNKNOWN, r"6 = \frac{1}{2} bh"),
        (UNKNOWN, "360 = 180 + 3|P|"),
        (UNKNOWN, "12 - 4 = 2 (x + 3)"),
        (UNKNOWN, "c_v (8 - 4) = 6.80 - 5.20"),
        (UNKNOWN, "k(3 + 4) = 20 + 1"),
        (UNKNOWN, "AB (3 + 4) = 20 + 1"),
        (UNKNOWN, r"\alpha (3 + 4) = 20 + 1"),
        (UNKNOWN, r"\frac{1}{2} \cdots \frac{3}{4} \cdot 2 = 5"),
        (UNKNOWN, r"5 \star 1 = 45 + 2"),
        (UNKNOWN, "+ 5 + 1 = 9"),
    ],
    "trials": [
        (UNKNOWN, "8 + 19 = 10 is false, so x = 1 is no root"),
        (UNKNOWN, "8 + 19 = 10, which is not true."),
        (UNKNOWN, "8 + 19 = 10? No."),
        (UNKNOWN, "Is 8 + 19 = 10?"),
        (UNKNOWN, "This gives 8 + 19 = 10, a contradiction."),
        (UNKNOWN, "We get 8 + 19 = 10. This is impossible."),
        (UNKNOWN, "8 + 19 = 10 does not hold"),
        (UNKNOWN, "But 8 + 19 = 10 cannot be."),
        (UNKNOWN, "This needs 8 + 19 = 10, but it's not."),
        (UNKNOWN, r"8 + 19 \neq 10"),
        (UNKNOWN, "8 + 19 =/= 10"),
        (UNKNOWN, "If 8 + 19 = 10 then we are done."),
        (UNKNOWN, "Suppose 8 + 19 = 10."),
        (UNKNOWN, "8 + 19 = 10 ✗"),
        (UNKNOWN, "8 + 19 = 10, 不成立"),
        (UNKNOWN, "若8 + 19 = 10，则"),
        (WRONG, "8 + 19 = 10 cars that are not red"),
        (WRONG, "If he pays, he has 8 + 19 = 10 left."),
    ],
    "other numbers": [
        (UNKNOWN, "In base 5, 3 + 4 = 12"),
        (UNKNOWN, "3 + 4 = 12_5"),
        (UNKNOWN, r"7 + 8 = 3 \pmod{12}"),
        (UNKNOWN, "modulo 12, 7 + 8 = 3"),
        (UNKNOWN, "It ends at 6:00+48=6:48"),
        (UNKNOWN, "0900-0130 = 0730"),
        (UNKNOWN, "(1, 2) + (3, 4) = (4, 7)"),
        (RIGHT, "40 / 3 = 13.333..."),
        (RIGHT, r"40 / 3 = 13.333\ldots"),
        (WRONG, r"40 / 3 = 13.433\ldots"),
        (RIGHT, "40 / 3 = 13.33…"),
        (RIGHT, r"40 / 3 = 13.\overline{3}"),
        (RIGHT, r"40 / 3 = 13 . \overline{3}"),
        (RIGHT, r"1/6 = 0.1\overline{6}"),
        (WRONG, r"1/7 = 0.\overline{142851}"),
        (RIGHT, "200 / 0.4536 = 441 pounds"),
        (RIGHT, "30° + 60° = 90°"),
        (WRONG, r"30^\circ + 60^\circ = 95^\circ"),
        (RIGHT, r"3 \times 4 = \boxed{12}"),
        (WRONG, r"3 \times 4 = \boxed{13}"),
        (RIGHT, "25 / 1/3 = 75"),
        (WRONG, "25 / 1/3 = 65"),
    ],
    "labels": [
        (UNKNOWN, "on day 1 * 2 = 20 pages"),
        (UNKNOWN, "Week 1 + Week 2 = 35 + 36"),
        (RIGHT, "Week 1 + Week 2 = 35 + 35 = 70"),
        (UNKNOWN, "neither die is 5 = 4 + 2"),
        (UNKNOWN, "they read 14, 400 / 80 = 180 pages"),
        (RIGHT, "so 7 = 3 + 4"),
    ],
    "running sums": [
        (UNKNOWN, "5 + 3 = 8 * 2 = 16"),
        (WRONG, "5 + 3 = 9 * 2 = 18"),
        (WRONG, "5 + 3 = 8 * 2 = 17"),
    ],
    "full-width": [
        (RIGHT, "３＋４＝７。"),
        (WRONG, "３＋４＝８。"),
        (RIGHT, "总共有3+4=7个苹果。"),
        (WRONG, "总共有3+4=8个苹果。"),
        (RIGHT, "因此，（3＋4）×2＝14。"),
        (RIGHT, "所以3+4=7。"),
        (RIGHT, "3.5×2=7千克"),
        (WRONG, "3.5×2=8千克"),
        (UNKNOWN, "12除以3+1=4"),
        (UNKNOWN, "3+4=8是错误的"),
        (UNKNOWN, "3万+4万=8万"),
        (UNKNOWN, "3+4=8万"),
    ],
}
PARTS = {
    "prmbench": "prm/prm800k_train_p1_first400_4o_*.jsonl",
    "gsm8k_test": "math/gsm8k_test.jsonl",
    "gsm8k_train": "math/gsm8k_train.jsonl",
    "math500": "math/math500.jsonl",
}
WRONG_IN_PRMBENCH = {
    "1-1/3+1/6=2/3",
    "116*117=13192",
    "23478=2*3*7*3354",
    "2*7*27=486",
    "4-12+9-4-6+4=-1",
    "7*3*73=1521",
    "90=70+21",
}
"""Sums of solutions that are labelled right, which are wrong: each was added up by hand."""


def score(text: str) -> float:
    """The lowest score of a text's lines."""
    return min(Arithmetic().scores(Newline()([Response.of_text("?", text)]))[0])


@pytest.mark.parametrize(
    ("expected", "text"), [case for cases in READ.values() for case in cases], ids=str
)
def test_a_sum_is_read_by_what_stands_beside_it(expected: float, text: str) -> None:
    assert score(text) == expected


def test_a_step_is_refuted_by_the_next() -> None:
    assert Arithmetic().scores(
        Newline()([Response.of_text("?", "8 + 19 = 10\nThis is false.")])
    ) == [[0.5, 0.5]]
    assert Arithmetic().scores(Newline()([Response.of_text("?", "8 + 19 = 10\nSo it is 10.")])) == [
        [0.0, 0.5]
    ]


def test_a_remainder_is_checked() -> None:
    assert holds("29/6 = 4 R 5") is True
    assert holds("29/6 = 4 R") is True
    assert holds("29/6 = 4 R 4") is False
    assert holds("30/6 + 1 = 4 R 5") is None
    assert holds("29/0 = 4 R 5") is None
    assert holds("28 + 1/6 = 29/6 = 4 R 5") is False


@pytest.mark.parametrize(
    "word", ["that is really truly ", "base ", "no, ", "1 mod ", "not ", "is "]
)
def test_the_neighbours_looked_at_are_bounded(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(size: int) -> None:
        text = word * (size // len(word))
        is_stated(text + "1+1=2 " + text, len(text), len(text) + 5)

    assert_linear(monkeypatch, run, (400, 800), assertions)


def right_responses(shared: Path) -> Iterator[tuple[str, str]]:
    """Texts that are right, with the name of their source."""
    questions = set()
    for name, pattern in PARTS.items():
        for path in sorted((shared / "data").glob(pattern)):
            for row in map(json.loads, path.read_text().splitlines()):
                if name != "prmbench":
                    yield name, row["solution" if name == "math500" else "answer"]
                elif row["original_question"] not in questions:
                    questions.add(row["original_question"])
                    yield name, "\n\n".join(row["original_process"])


def flagged(text: str) -> list[str]:
    """The sums of a text that are found wrong, written without space and doubled brackets."""
    lines = list(filter(str.strip, text.splitlines()))
    return [
        re.sub(r"\(\((\d+)\)/\((\d+)\)\)", r"\1/\2", equation).replace(" ", "").strip("()")
        for line, next_ in zip(lines, [*lines[1:], ""], strict=True)
        for equation in written_equations(line, next_)
        if holds(equation) is False
    ]


def test_right_responses_are_not_flagged(shared_dir: Path) -> None:
    """Of all, at most 0.5 % have a flagged step, wrong ones included; each source without them."""
    responses, wrong = dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    really_wrong = 0
    for name, text in right_responses(shared_dir):
        responses[name] += 1
        if found := set(flagged(text)):
            known = {re.sub(r"\(|\)", "", one) for one in found} <= WRONG_IN_PRMBENCH
            really_wrong += known
            wrong[name] += not known
    total = sum(responses.values())
    assert responses == {"prmbench": 760, "gsm8k_test": 1319, "gsm8k_train": 7473, "math500": 500}
    assert (sum(wrong.values()) + really_wrong) / total <= 0.005
    assert all(wrong[name] / responses[name] <= 0.005 for name in PARTS)


def planted(text: str, rng: random.Random) -> str | None:
    """The text with one digit of its first right sum changed; None without such a sum."""
    plain = spelled_plainly(re.sub(r"<<[^<>]*>>", "", text))
    right = [equation for equation in written_equations(plain) if holds(equation)]
    if not right:
        return None
    signs = re.sub(r"\s+|R.*", "", right[0])
    place = re.search(r"[ \t]*".join(map(re.escape, signs)), plain)
    if place is None:
        return None
    digits = [i for i in range(*place.span()) if plain[i].isdigit()]
    at = rng.choice(digits)
    other = rng.choice([digit for digit in "123456789" if digit != plain[at]])
    return plain[:at] + other + plain[at + 1 :]


def test_planted_errors_are_flagged(shared_dir: Path) -> None:
    """Of lines with a sum that is read and right, at least 95 % are flagged after one change."""
    rng, tried, found = random.Random(0), 0, 0
    for name, text in right_responses(shared_dir):
        if name == "gsm8k_train":
            continue
        for line in text.splitlines():
            wrong = planted(line, rng)
            if wrong is not None:
                tried += 1
                found += any(holds(one) is False for one in written_equations(wrong))
    assert tried > 4_000
    assert found / tried >= 0.95


def test_a_change_in_ones_own_sums_is_flagged() -> None:
    texts = [
        "She has 12 + 7 = 19 pens, so 19 - 4 = 15 are left.",
        r"Thus \(6 \times 14 = 84\) and $84 \div 7 = 12$.",
        r"\frac{3}{4} + \frac{1}{8} = \frac{7}{8}",
        "It costs $4.25 * 3 = $12.75 in total.",
        "47 ÷ 6 = 7 R 5",
        "35% of 60 = 21 students",
    ]
    for text in texts:
        assert score(text) == RIGHT
        changed = [planted(text, random.Random(seed)) or "" for seed in range(8)]
        assert [score(one) for one in changed] == [WRONG] * 8


def test_annotations_are_left_to_the_other_signal() -> None:
    assert annotated_equations("3 + 4 = <<3+4=8>>7") == ["3+4=8"]
    assert written_equations("3 + 4 = <<3+4=8>>7") == ["3 + 4 = 7"]
