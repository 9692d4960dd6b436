"""What credit reads of the responses' texts and ids, in the trainer: signals, chunks, metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import stepcredit as sc
from stepcredit.engines.verl.batch import QueuedBatch
from stepcredit.engines.verl.batch_credit import BatchCredit
from stepcredit.engines.verl.config_keys import VerlSettings
from stepcredit.errors import EngineError
from stepcredit.lab.arithmetic import build_tokenizer
from stepcredit.signals.signal import Signal

TOKENIZER = build_tokenizer()  # one character a token
SAID = ["12\n3", "12\n4", "--\n12\n12\n", "5\n6"]
UIDS = ["a", "b", "b", "a"]
OUTCOMES = [1.0, 0.0, 0.5, 0.25]


def queued(said=SAID, masks=None, **columns):
    """Rows of the queue whose responses say this."""
    ids = [torch.tensor(TOKENIZER.encode(text, add_special_tokens=False)) for text in said]
    given = {
        "uid": UIDS[: len(said)],
        "responses": ids,
        "prompts": [torch.tensor([3, 4])] * len(said),
        "response_mask": [torch.ones(len(row), dtype=torch.int64) for row in ids],
        "rm_scores": [
            torch.cat([torch.zeros(len(row) - 1), torch.tensor([outcome])])
            for row, outcome in zip(ids, OUTCOMES, strict=False)
        ],
        **columns,
    }
    if masks is not None:
        given["response_mask"] = [torch.tensor(mask) for mask in masks]
    keys = [f"{uid}_{row}_0" for row, uid in enumerate(given["uid"])]
    return QueuedBatch.of(given, keys, [{}] * len(keys))


def credit_of(batch, **given):
    settings = VerlSettings.of({"algorithm": {"stepcredit": {"splitter": "newline", **given}}})
    return BatchCredit(batch, settings, TOKENIZER)


def test_a_signal_of_whole_groups_knows_each_responses_own_group_and_outcome():
    said = ["12\n3", "12\n4", "12\n3", "12\n5"]
    credit = credit_of(queued(said), process_signal="shared-prefix")
    found = credit.rollouts.streams["process"]
    assert found.ends.tolist() == [2, 3] * 4
    # a: 1.0 and 0.25 share the first line; b: 0.0 and 0.5
    assert found.values.tolist() == [0.625, 1.0, 0.25, 0.0, 0.25, 0.5, 0.625, 0.25]


def test_a_signal_reads_the_data_sets_row_the_ids_and_which_tokens_are_the_policys():
    seen = []

    class Seen(Signal):
        """It keeps what it was given."""

        grain, cacheable, identity = "steps", False, {}

        def stream(self, responses):
            seen.extend(responses)
            yield from ((row, [0.0] * len(r.step_ends)) for row, r in enumerate(responses))

    turns = [[{"role": "user", "content": f"{row}?"}] for row in range(4)]
    batch = queued(
        masks=[[1, 1, 1, 1], [1, 1, 0, 1], [1] * 9, [1] * 3],
        raw_prompt=turns,
        reward_model=[{"ground_truth": f"gold {row}"} for row in range(4)],
        extra_info=[{"hops": row, "answer": f"so, gold {row}"} for row in range(4)],
    )
    given = replace(credit_of(batch).settings, signals={"process": Seen()})
    assert BatchCredit(batch, given, TOKENIZER).rollouts.num_rollouts == 4
    one = seen[1]
    assert (one.prompt, one.text, one.prompt_ids) == ("1?", "12\n4", (3, 4))
    assert one.own == (True, True, False, True)
    known = {"answer": "gold 1", "hops": 1, "group": "b", "outcome": 0.0}
    assert one.facts == known


@pytest.mark.parametrize("text", ["12=345", "12=3\n5", "12=\n45"])
def test_an_agents_turns_are_steps_and_what_its_tools_wrote_is_none(text):
    said, masks = [text], [[1, 1, 0, 0, 1, 1]]
    credit = credit_of(queued(said, masks), process_signal="equations", splitter="turns")
    found = credit.rollouts.streams["process"]
    assert (found.ends.tolist(), credit.rollouts.lengths.tolist()) == ([1, 3], [4])


def test_chunks_that_are_steps_are_the_splitters_for_a_signal_of_tokens():
    own = [[-1.0] * len(text) for text in SAID]
    teacher = [
        [-1.0 - 0.3 * t * (row + 1) % 0.8 for t in range(len(x))] for row, x in enumerate(SAID)
    ]
    columns = {
        "old_log_probs": [torch.tensor(row) for row in own],
        "teacher_logprobs": [torch.tensor([0.0, *row, 0.0])[:, None] for row in teacher],
    }
    masks = [[1, 1, 1, 1], [0, 0, 0, 1], [1] * 9, [1, 0, 1]]
    fields = {"chunks": "steps"}
    credit = credit_of(queued(masks=masks, **columns), process_signal="opd", fields=fields)
    scores = [
        [after - before for before, after, kept in zip(*row, strict=True) if kept]
        for row in zip(own, teacher, masks, strict=True)
    ]
    rollouts = sc.Rollouts(
        UIDS,
        process=sc.Tokens(scores),
        outcome=OUTCOMES,
        step_ends=[[2, 3], [0], [2, 5, 8], [0, 1]],
    )
    expected = sc.PASS(chunks="steps")(rollouts).ragged()
    for row, values, mask in zip(credit.rows(), expected, masks, strict=True):
        torch.testing.assert_close(row[torch.tensor(mask).bool()], values, rtol=1e-5, atol=1e-5)
        assert row[~torch.tensor(mask).bool()].tolist() == [0.0] * mask.count(0)


def test_chunks_cut_by_text_read_the_trained_tokens():
    masks = [[1, 1, 1, 1], [0, 1, 1, 1], [1] * 9, [1] * 3]
    credit = credit_of(queued(masks=masks), fields={"chunks": "delimiters"})
    assert credit.rollouts.tokens == [
        list("12\n3"),
        list("2\n4"),
        list("--\n12\n12\n"),
        list("5\n6"),
    ]


def test_the_metrics_read_texts_steps_and_the_limit():
    ends = [[2, 3], [2, 3], [2, 5, 8], [1, 2]]
    extras = [
        {"reward_extra_info": {"step_ends": row, "step_scores": [0.5] * len(row)}} for row in ends
    ]
    figures = credit_of(queued(extra_fields=extras)).metrics(longest=4)
    assert figures["stepcredit/contentless_step_share"] == pytest.approx(1 / 9)
    assert figures["stepcredit/repeated_step_share"] == pytest.approx(1 / 9)
    assert figures["stepcredit/reflection_words"] == 0
    assert figures["stepcredit/truncated_share"] == pytest.approx(3 / 4)
    assert "stepcredit/truncated_share" not in credit_of(queued()).metrics()


def test_a_stream_that_the_reward_function_gives_too_is_refused():
    extras = [{"reward_extra_info": {"token_scores": [0.1] * len(text)}} for text in SAID]
    credit = credit_of(queued(extra_fields=extras), process_signal="shared-prefix")
    with pytest.raises(EngineError) as caught:
        _ = credit.rollouts
    reason = "the reward function returns a stream of this name too"
    assert str(caught.value) == f"algorithm.stepcredit.process_signal (process): {reason}"


def test_log_probs_that_are_not_in_the_queue_are_named():
    with pytest.raises(EngineError, match=r"^student_logprobs: are not in the queue$"):
        _ = credit_of(queued(), method="opd").rollouts
