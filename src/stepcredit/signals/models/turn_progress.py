"""`TurnProgress`: how much each turn of an agent raises the likelihood of the gold answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.signals.models.answer_progress import AnswerProgress
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores
from stepcredit.signals.signal_registry import register_signal


@register_signal("turn-progress")
@dataclass(frozen=True, kw_only=True)
class TurnProgress(AnswerProgress):
    r"""Progress of the gold answer's likelihood, turn by turn of an agent (the reward of TIPS).

        l_j = log p(answer after | prompt, turns 1..j with their tools' answers, before)
        score_j = l_j - l_{j-1}

    A turn is worth what it and the answer of the tool that it called did for the gold answer's
    likelihood: a search that finds the fact scores above 0. The steps are those of the splitter
    `turns`. `answer-progress` gives a tool's answer a score of its own, which is lost, since no
    token of it is trained; here its score is added to the turn before it, and it gets 0. The scores
    of a response still add up to l_K - l_0.

    Args:
        model: whose likelihood is read, such as a frozen copy of the policy; a folder or name, or a
            loaded causal language model.
        tokenizer, answer, before, after, over, reads, packed: as in `AnswerProgress`.
        max_tokens_per_batch, device, dtype, unscorable: as in `AnswerProgress`.

    Raises:
        RolloutError, SignalError, SettingError: as in `AnswerProgress`.

    Example:
        >>> TurnProgress(model="models/policy", before="<answer>", after="</answer>").grain
        'steps'

    Source: TIPS (2603.22293), whose potential is the likelihood under a frozen or refreshed copy of
    the policy. Differs: no scale, which the method's weights or `affine` give.
    """

    def content(self, response: Response) -> Any:
        """As in `AnswerProgress`, and which steps the policy wrote."""
        return [super().content(response), response.written_steps]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """As in `AnswerProgress`, with the scores of tools' answers at the turns before them."""
        for index, scores in super().stream(responses):
            yield index, credit_callers(scores, responses[index].written_steps)


def credit_callers(scores: Sequence[float], written: Sequence[bool]) -> list[float]:
    """Scores of steps, where those of tools' answers are added to the turn before them.

    Args:
        scores: one per step, or none.
        written: which of the steps the policy wrote.

    Returns:
        As many scores, with the same sum; a tool's answer behind no turn keeps its score.

    Example:
        >>> credit_callers([0.5, 2.0, -1.0], [True, False, True])
        [2.5, 0.0, -1.0]
    """
    found, caller = list(scores), None
    for step, (score, own) in enumerate(zip(scores, written, strict=False)):
        if own:
            caller = step
        elif caller is not None:
            found[caller] += score
            found[step] = 0.0
    return found
