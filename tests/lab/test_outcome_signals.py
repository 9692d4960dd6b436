"""Process signals made of outcomes and of the policy, beside values computed by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from stepcredit.errors import StepCreditError
from stepcredit.lab.arithmetic import ARITHMETIC, build_tokenizer
from stepcredit.lab.lab_settings import LabSettings
from stepcredit.lab.model import build_model
from stepcredit.lab.outcome_signals import OutcomeSignal, Policy
from stepcredit.lab.readers import token_logprobs
from stepcredit.lab.sampling import sample

PROMPT = "3+4*2="
GROUP = ["3+4=7\n7*2=4\n<4>$", "3+4=7\n7*2=5\n<5>$", "3+4=8\n8*2=6\n<6>$", "<4>$"]
TOKENIZER = build_tokenizer()
IDS = TOKENIZER(GROUP).input_ids


def scores(
    name: str, most: int = 40, sampler=sample, **fields: int
) -> tuple[list[list[float]], OutcomeSignal]:
    """The scores of the group, and the signal."""
    signal = ARITHMETIC.signal(name, 0, fields)
    assert isinstance(signal, OutcomeSignal)
    signal.policy = Policy(build_model(TOKENIZER), TOKENIZER, most, sampler)
    graded = [ARITHMETIC.check(PROMPT, text) for text in GROUP]
    found = signal.process([PROMPT] * len(GROUP), IDS, graded, {})
    assert found.ends.tolist() == [end for g in graded for end in g.step_ends]
    rows = iter(found.values.tolist())
    return [[next(rows) for _ in g.step_ends] for g in graded], signal


def test_shared_prefix_is_the_mean_outcome_of_those_that_share_the_step() -> None:
    found, _ = scores("shared-prefix")
    assert found == [[0.5, 1.0, 1.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0]]


def test_answer_progress_is_the_change_of_the_answers_log_prob() -> None:
    found, signal = scores("answer-progress")
    assert signal.policy is not None
    for text, row in zip(GROUP, found, strict=True):
        lines = text.splitlines(keepends=True)
        prefixes = ["".join(lines[:n]) for n in range(len(lines))]
        starts = [PROMPT + prefix for prefix in prefixes]
        answers = TOKENIZER(["<4>"] * len(starts)).input_ids
        said = token_logprobs(signal.policy.model, TOKENIZER, starts, answers).values
        # the mark before the answer is given, so that it does not count
        likelihood = said.reshape(-1, 3)[:, 1:].sum(1)
        assert row[:-1] == pytest.approx(likelihood.diff().tolist(), abs=1e-4)
        assert row[-1] == 0


def test_monte_carlo_is_the_mean_outcome_of_continued_answers() -> None:
    asked = []

    def continued(model, tokenizer, texts, n, seed, purpose, most) -> list[list[int]]:
        asked.append((texts, n))
        ends = {"7\n": ["7*2=4\n<4>$", "<7>$"], "4\n": ["<4>$"] * 2}
        return tokenizer([end for text in texts for end in ends.get(text[-2:], ["<0>$"] * 2)])[
            "input_ids"
        ]

    found, signal = scores("monte-carlo", sampler=continued, n=2)
    assert found == [[0.5, 1.0, 1.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0]]
    ((texts, n),) = asked
    assert (len(texts), len(set(texts)), n, signal.completions) == (5, 5, 2, 10)
    # an answer that goes on beyond the limit is cut, and then wrong
    assert scores("monte-carlo", 14, continued, n=2)[0][0] == [0.0, 0.0, 1.0]


def test_monte_carlo_depends_on_the_prefixes_and_the_seed_alone() -> None:
    first, signal = scores("monte-carlo", n=3)
    assert first == scores("monte-carlo", n=3)[0]
    assert signal.completions == 5 * 3
    assert all(0 <= value <= 1 for row in first for value in row)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"signal": "shared-prefix", "answered": 0.5},
            "signal shared-prefix: needs the outcome of every prompt, got answered=0.5",
        ),
        (
            {"signal": "monte-carlo", "signal_fields": {"n": 0}},
            "signal_fields.n: expected a positive whole number, got 0",
        ),
        (
            {"signal": "shared-prefix", "signal_fields": {"n": 2}},
            "signal_fields: has no setting 'n', only its name",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(options: dict[str, object], line: str) -> None:
    with pytest.raises(StepCreditError) as refused:
        LabSettings(compare=None, **options)  # type: ignore[arg-type]
    assert str(refused.value) == line


def test_a_signal_outside_a_run_has_no_policy() -> None:
    signal = ARITHMETIC.signal("monte-carlo", 0)
    with pytest.raises(StepCreditError, match="signal monte-carlo: needs the policy of a run"):
        signal.process([PROMPT], IDS[:1], [ARITHMETIC.check(PROMPT, GROUP[0])], {})
