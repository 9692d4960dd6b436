r"""MATH500's gold answers written in other ways, right and wrong, with the truth known.

    python benchmarks/written_answers.py MATH500.jsonl -o written.jsonl

The truth of each is known by how it was made, not by a grader: a right one is the same value in
another spelling that models use, a wrong one has a number changed, a sign, a part lost, the
order of a pair, or the kind of an interval's end. Each response has the answer in a box and in the
line that lm-evaluation-harness reads.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

Rewrite = Callable[[str], str | None]
FRACTION = re.compile(r"\\frac\{(\d+)\}\{(\d+)\}")
WHOLE = re.compile(r"-?\d+")
PAIR = re.compile(r"\\left\(\s*(.+?)\s*,\s*(.+?)\s*\\right\)|\(\s*([^,]+?)\s*,\s*([^,]+?)\s*\)")
TERMINATING = {1, 2, 4, 5, 8, 10, 16, 20, 25, 50, 100}
END = (
    "{work} So the answer is $\\boxed{{{answer}}}$.\nFinal Answer: The final answer is ${answer}$. "
)


def replaced(old: str, new: str) -> Rewrite:
    """A rewrite that replaces a text wherever it stands."""
    return lambda gold: gold.replace(old, new) if old in gold else None


def is_whole(gold: str) -> bool:
    """Whether an answer is a whole number in digits alone."""
    return WHOLE.fullmatch(gold) is not None


def as_decimal(gold: str) -> str | None:
    """A fraction whose decimals end, as a decimal."""
    found = re.fullmatch(r"(-?)" + FRACTION.pattern, gold)
    if found is None or int(found[3]) not in TERMINATING:
        return None
    return f"{found[1]}{int(found[2]) / int(found[3]):.10g}"


def with_thousands(mark: str) -> Rewrite:
    """A whole number of four digits or more, with marks between its thousands."""

    def rewrite(gold: str) -> str | None:
        large = is_whole(gold) and abs(int(gold)) >= 1000
        return f"{int(gold):,}".replace(",", mark) if large else None

    return rewrite


def pair_of(gold: str) -> tuple[str, str] | None:
    """The parts of an ordered pair."""
    found = PAIR.fullmatch(gold)
    if found is None:
        return None
    one, other = found[1] or found[3], found[2] or found[4]
    return one, other


def listed_parts(gold: str) -> list[str] | None:
    """The parts of a list without brackets."""
    if any(mark in gold for mark in "()[]{}") or "," not in gold:
        return None
    return [part.strip() for part in gold.split(",")]


def has_thousands(gold: str) -> bool:
    """Whether the commas stand between the thousands of a number."""
    plain = re.sub(r"\\[!$]|\s", "", gold)
    return re.fullmatch(r"-?\d{1,3}(,\d{3})+", plain) is not None


def reversed_list(gold: str) -> str | None:
    """A list in the other order."""
    parts = listed_parts(gold)
    if not parts or has_thousands(gold):
        return None
    return ", ".join(reversed(parts))


def plain_words(gold: str) -> str | None:
    """Words outside of `\\text`."""
    found = re.fullmatch(r"\\text\{([^{}]+)\}", gold)
    return found[1] if found else None


def simple_fraction(gold: str) -> str | None:
    """A fraction with a slash."""
    found = re.fullmatch(r"(-?)" + FRACTION.pattern, gold)
    return f"{found[1]}{found[2]}/{found[3]}" if found else None


RIGHT: Mapping[str, Rewrite] = {
    "as it is": lambda gold: gold,
    "dfrac": replaced(r"\frac", r"\dfrac"),
    "tfrac": replaced(r"\frac", r"\tfrac"),
    "no left and right": lambda g: (
        g.replace(r"\left", "").replace(r"\right", "") if r"\left" in g else None
    ),
    "slash": simple_fraction,
    "decimal": as_decimal,
    "a decimal point": lambda gold: f"{gold}.0" if is_whole(gold) else None,
    "thousands": with_thousands(","),
    "thousands in TeX": with_thousands("{,}"),
    "a named value": lambda gold: f"x = {gold}" if is_whole(gold) else None,
    "dollars": lambda gold: rf"\${gold}" if is_whole(gold) else None,
    "degrees": lambda g: rf"{g}^\circ" if is_whole(g) else None,
    "no degrees": replaced(r"^\circ", ""),
    "a unit": lambda gold: rf"{gold} \text{{ units}}" if is_whole(gold) else None,
    "words": plain_words,
    "the other order": reversed_list,
    "a root without braces": lambda g: (
        re.sub(r"\\sqrt\{(\d)\}", r"\\sqrt\1", g) if re.search(r"\\sqrt\{\d\}", g) else None
    ),
    "a dot before a root": lambda g: (
        re.sub(r"(\d)\\sqrt", r"\1 \\cdot \\sqrt", g) if re.search(r"\d\\sqrt", g) else None
    ),
    "more space": lambda g: (
        re.sub(r"([+=,])", r"\1 ", g) if re.search(r"[+=,]\S", g) and not has_thousands(g) else None
    ),
    "less space": lambda g: g.replace(" ", "") if " " in g and "\\" not in g else None,
    "the sign in the fraction": lambda g: (
        g.replace(r"-\frac{", r"\frac{-", 1) if g.startswith(r"-\frac{") else None
    ),
}
"""Other spellings of an answer; None where one does not fit."""


def with_last_number(change: Callable[[int], int]) -> Rewrite:
    """A rewrite of the last whole number in an answer."""

    def rewrite(gold: str) -> str | None:
        found = list(re.finditer(r"(?<![\d.])\d+(?![\d.])", gold))
        if not found or re.search(r"\\(mbox|text)", gold):  # the number may be one of a unit
            return None
        last = found[-1]
        return f"{gold[: last.start()]}{change(int(last[0])):0{len(last[0])}d}{gold[last.end() :]}"

    return rewrite


def swapped(gold: str) -> str | None:
    """An ordered pair in the other order."""
    pair = pair_of(gold)
    return f"({pair[1]}, {pair[0]})" if pair and pair[0] != pair[1] else None


def upside_down(gold: str) -> str | None:
    """The reciprocal of a fraction."""
    found = re.fullmatch(r"(-?)" + FRACTION.pattern, gold)
    return rf"{found[1]}\frac{{{found[3]}}}{{{found[2]}}}" if found else None


def without_last(gold: str) -> str | None:
    """A list without its last part."""
    parts = listed_parts(gold)
    lost = parts is None or len(parts) < 2 or reversed_list(gold) is None
    return None if lost or parts is None else ", ".join(parts[:-1])


WRONG: Mapping[str, Rewrite] = {
    "one more": with_last_number(lambda n: n + 1),
    "ten times": lambda gold: f"{gold}0" if is_whole(gold) and gold != "0" else None,
    "the other sign": lambda g: (
        (g[1:] if g.startswith("-") else f"-{g}") if is_whole(g.strip("-")) and g != "0" else None
    ),
    "upside down": upside_down,
    "the pair swapped": swapped,
    "a part lost": without_last,
    "a part more": lambda g: f"{g}, 12345" if listed_parts(g) and reversed_list(g) else None,
    "another end": lambda g: (
        (g.replace("[", "(", 1) if g.startswith("[") else g.replace("(", "[", 1))
        if re.fullmatch(r"[(\[].*(?:infty|\d)[)\]]", g) and "," in g and ("[" in g or "infty" in g)
        else None
    ),
    "plus one": lambda gold: f"{gold} + 1" if "," not in gold and r"\text" not in gold else None,
}
"""Wrong answers that look like the right one."""


def responses(gold: str, work: str) -> Iterator[dict[str, object]]:
    """Every response to one problem, with its truth."""
    for truth, rewrites in ((1, RIGHT), (0, WRONG)):
        for kind, rewrite in rewrites.items():
            answer = rewrite(gold)
            if answer is not None and (kind == "as it is" or answer != gold):
                text = END.format(work=work, answer=answer) + "I hope it is correct."
                yield {"answer": gold, "text": text, "kind": kind, "truth": truth}


def main() -> None:
    """Write the responses of all problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    made = []
    for place, line in enumerate(arguments.problems.read_text().splitlines()):
        row = json.loads(line)
        for each in responses(row["answer"], "We work it out."):
            made.append({"group": place, **each})
    arguments.output.write_text("".join(f"{json.dumps(each)}\n" for each in made))
    print(f"{len(made)} responses to {place + 1} problems")


if __name__ == "__main__":
    main()
