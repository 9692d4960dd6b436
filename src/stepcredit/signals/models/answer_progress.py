"""`AnswerProgress`: how much each step raises the likelihood of the gold answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from operator import add
from typing import Any

from torch import Tensor

from stepcredit.errors import SignalError
from stepcredit.settings.fields import choice, flag, text
from stepcredit.signals.facts import text_fact
from stepcredit.signals.models.batching import MAX_PADDING, length_batches
from stepcredit.signals.models.causal import CausalLM
from stepcredit.signals.models.checkpoints import model_label
from stepcredit.signals.models.contexts import content_of, reads_field, trunk_of
from stepcredit.signals.models.local_model import LocalCausalModel
from stepcredit.signals.models.tree_attention import (
    Branch,
    Tree,
    packed_log_probs,
    takes_tree_masks,
    unpacked_log_probs,
)
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores
from stepcredit.signals.signal_registry import register_signal
from stepcredit.signals.unscorable import Unscorable, identity_of_policy, unless_unscorable

HINT = "packed=false runs one forward per prefix"


@register_signal("answer-progress")
@dataclass(frozen=True, kw_only=True)
class AnswerProgress(LocalCausalModel):
    r"""Progress of the gold answer's likelihood under the policy, step by step.

        l_j = log p(answer after | prompt, steps 1..j, before), summed over tokens
        score_j = l_j - l_{j-1}

    It needs no reward model. A step that makes the answer more likely scores above 0, filler 0, and
    a misleading step below 0. The steps' scores add up to l_K - l_0. All l_j of a response come
    from one forward pass: the answer stands once after each prefix, and a mask lets it see only
    that prefix.

    Args:
        model: the policy, a folder or name, or a loaded causal language model.
        tokenizer: its own; None takes the one beside the model.
        answer: the row's field that holds the gold answer, text or a number.
        before, after: what connects a prefix with the answer, and what closes it; `after` counts
            as part of the answer, or 4 would be as likely as 42. Where a prefix ends in space, as
            a step does with its delimiter, that space replaces the one `before` begins with.
        over: "sum" of the answer's tokens, or their "mean".
        reads: "ids" gives the model the policy's tokens, "text" its own tokens of prompt and text.
        packed: False runs one forward pass per prefix. The scores are the same; it is for models
            whose attention accepts no such mask.
        max_tokens_per_batch: the most tokens in one forward pass, padding included; a longer
            response is run alone.
        device, dtype: as in `LocalLogProbs`.

    Raises:
        RolloutError: a row without answer or ids, or over the model's context.
        SignalError: a model that cannot be loaded, or cannot be packed.
        SettingError: a loaded model without its tokenizer, or a field out of range.

    Example:
        >>> AnswerProgress(model="models/policy", answer="gold").over
        'sum'
    """

    answer: str = text("answer", "field of the gold answer")
    before: str = text("\n\nThe answer is \\boxed{", "what stands before the answer")
    after: str = text("}", "what closes the answer, and counts with it")
    over: str = choice("sum", ("sum", "mean"), "over the answer's tokens")
    reads: str = reads_field()
    packed: bool = flag(True, "one forward pass per response, not one per prefix")

    grain = "steps"

    @property
    def reads_token_ids(self) -> bool:
        """Whether `reads` is "ids"."""
        return self.reads == "ids"

    @property
    def identity(self) -> dict[str, Any]:
        """Model's and tokenizer's digests, the answer's frame, how tokens are read and reduced."""
        settings = {
            name: getattr(self, name) for name in ("before", "after", "over", "reads", "dtype")
        }
        marks = {"model": self.model_fingerprint, "tokenizer": self.tokenizer_fingerprint}
        policy = identity_of_policy(self.unscorable)
        return {"signal": self.name, **marks, **settings, **policy}

    def content(self, response: Response) -> Any:
        """The tokens or texts, and the gold answer."""
        return [content_of(response, self.reads), text_fact(response, self.answer)]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        """Batch by batch, the longest responses first."""
        if self.packed:
            self._check_packs()
        read = [unless_unscorable(partial(self._tree, each), self.unscorable) for each in responses]
        yield from ((index, []) for index, tree in enumerate(read) if tree is None)
        trees = {index: tree for index, tree in enumerate(read) if tree is not None}
        if not self.packed:
            for index, tree in trees.items():
                yield index, self._scores(self._prefix_by_prefix(tree))
            return
        rows, lengths = list(trees), [tree.starts[-1] for tree in trees.values()]
        for batch in length_batches(lengths, self.max_tokens_per_batch, MAX_PADDING):
            found = packed_log_probs(self.causal, [trees[rows[place]] for place in batch])
            scores = map(self._scores, found)
            yield from zip([rows[place] for place in batch], scores, strict=True)

    def _tree(self, response: Response) -> Tree:
        trunk = trunk_of(response, self.causal.tokenizer, self.reads)
        answer = text_fact(response, self.answer)
        tight, spaced = (
            self._branch(answer, self.before.lstrip()),
            self._branch(answer, self.before),
        )
        spaces = [self._ends_in_space(prefix) for prefix in trunk.prefixes]
        tree = Tree(trunk, tuple(tight if space else spaced for space in spaces))
        self.causal.check(response, trunk.ids + spaced.ids, tree.longest_position)
        if self.packed:
            self._check_window(response, tree)
        return tree

    def _ends_in_space(self, ids: Sequence[int]) -> bool:
        """Whether a prefix ends with the space that `before` begins with."""
        return self.causal.tokenizer.decode(ids[-1:])[-1:].isspace()

    def _branch(self, answer: str, before: str) -> Branch:
        """The framed answer; `first` is the first token that holds part of the answer."""
        framed = before + answer + self.after
        found = self.causal.tokenizer(framed, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in found["offset_mapping"]]
        first = next(index for index, end in enumerate(ends) if end > len(before))
        return Branch(tuple(found["input_ids"]), first)

    def _scores(self, log_probs: Sequence[Tensor]) -> list[float]:
        """The change of the answer's log-prob from each prefix to the next."""
        values = [found.double() for found in log_probs]
        likelihood = [float(v.sum() if self.over == "sum" else v.mean()) for v in values]
        return [after - before for before, after in pairwise(likelihood)]

    def _prefix_by_prefix(self, tree: Tree) -> list[Tensor]:
        rows: dict[int, Tensor] = {}
        fed = (branch.fed for branch in tree.branches)
        lengths = list(map(add, tree.trunk.cuts, fed))
        for batch in length_batches(lengths, self.max_tokens_per_batch, MAX_PADDING):
            found = unpacked_log_probs(self.causal, tree, batch)
            rows |= dict(zip(batch, found, strict=True))
        return [rows[cut] for cut in range(len(lengths))]

    def _check_packs(self) -> None:
        if not self._packs:
            reason = f"its attention does not take the packed mask: {HINT}"
            raise SignalError(reason, field=model_label(self.model))

    def _check_window(self, response: Response, tree: Tree) -> None:
        window = _window(self.causal)
        if window is not None and tree.longest_position > window:
            reason = f"over the attention's window of {window}: {HINT}"
            reason = f"{tree.longest_position} positions, {reason}"
            raise Unscorable(reason, field="token_ids", place=response.name)

    @cached_property
    def _packs(self) -> bool:
        return takes_tree_masks(self.causal)


def _window(causal: CausalLM) -> int | None:
    """The smallest attention window of the layers, which the packed mask cannot express."""
    config = causal.model.config.get_text_config()
    sizes = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((size for size in sizes if size), default=None)
