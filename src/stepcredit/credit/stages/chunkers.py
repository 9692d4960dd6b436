"""The chunkers: Chunk-by-Value and the other rules that say where credit may change.

A chunker takes a `LeadStream` and returns `Chunks`: the slots it works on, and which of them end a
chunk. The value of a chunk is read at its last token. Each docstring states the cost in L, the
length of the response, and S, its steps.
"""

from __future__ import annotations

import math
import re

import torch
from jaxtyping import Bool
from torch import Tensor

from stepcredit.credit.stages.chunker_registry import register_chunker
from stepcredit.credit.stages.chunks import Chunks, LeadStream
from stepcredit.credit.stages.groups import TOLERANCE, Group, Mask, Values
from stepcredit.credit.stages.process_streams import dense_stream
from stepcredit.credit.stages.segmentation import COSTS, Segments, segment_ends
from stepcredit.data.forest import all_true, any_true
from stepcredit.data.slots import Slots, step_slots, whole_responses
from stepcredit.errors import MethodError
from stepcredit.settings.fields import is_number, is_one_of, is_pattern, is_whole

ETA = 1e-8


@register_chunker("auto")
def auto(lead: LeadStream) -> Chunks:
    """The paper's chunkers: `steps` for a step signal, `group_runs` for a token signal.

    Source: PASS (2606.29296) Algorithm 2.
    """
    return group_runs(lead) if lead.scores_tokens else steps(lead)


@register_chunker("steps", needs="step_ends")
def steps(lead: LeadStream) -> Chunks:
    """The chunks are the steps; neighbours with equal scores are not merged. Cost O(S).

    Raises:
        MethodError: a token signal leads and the rollouts have no `step_ends`.

    Source: PASS (2606.29296) Algorithm 2.
    """
    if not lead.scores_tokens:
        return Chunks(lead.slots)
    ends = lead.rollouts.step_ends
    if ends is None:
        raise MethodError("'steps' needs a step signal, or rollouts with step_ends", field="chunks")
    return Chunks(step_slots(ends.values, ends.counts, lead.slots.lengths))


@register_chunker("tokens")
def tokens(lead: LeadStream) -> Chunks:
    """Every token is a chunk. Cost O(L).

    Source: our reading of the paper's "w/o CV".
    """
    slots = lead.token_slots
    present = lead.present
    if bool(present.all()):
        return Chunks(slots)
    return Chunks(slots, slots.mask & (present[:, None] | slots.end_slots()))


@register_chunker("runs", eta=is_number(at_least=0))
def runs(lead: LeadStream, eta: float = ETA) -> Chunks:
    """Runs of equal raw scores: a chunk begins where |u_t - u_{t-1}| > eta.

    Cost O(S), or O(L) for a token signal.

    Source: PASS (2606.29296) section 4.2. Differs: each score is compared with the one before it,
        not with the first of its chunk; the two differ only under a drift below eta.
    """
    jumps = _jumps(lead.raw, lead.group.to_rows(lead.group.largest(lead.raw)), eta)
    return Chunks(lead.slots, _ends(jumps, lead))


@register_chunker("sign_runs")
def sign_runs(lead: LeadStream) -> Chunks:
    """Runs of one sign of the standardized score; |z| <= 1e-9 of the largest counts as 0.

    It is meant for token signals, whose scores are hardly ever equal. Cost O(S), or O(L) for a
    token signal.
    """
    largest = lead.group.to_rows(lead.group.largest(lead.standardized))
    z = lead.standardized
    sign = torch.where(z.abs() <= TOLERANCE * largest, 0.0, z.sign())
    return Chunks(lead.slots, _ends(sign[:, 1:] != sign[:, :-1], lead))


@register_chunker(
    "change_points",
    penalty=is_number(above=0),
    min_tokens=is_whole(at_least=1),
    cost=is_one_of(COSTS),
)
def change_points(
    lead: LeadStream, penalty: float = 2.0, min_tokens: int = 4, cost: str = "absolute"
) -> Chunks:
    """Segments of one level each: the exact minimum of the distance to it + penalty x changes.

    Args:
        lead: the leading stream.
        penalty: cost of one more segment, in units of the deviation of the group's scores
            ("absolute") or of their variance ("squared"; 2 ln L is the BIC).
        min_tokens: the fewest trained tokens of a chunk, unless the response has fewer.
        cost: "absolute": distance to the segment's median, which one surprising token among three
            or more does not move; "squared": distance to its mean, which it moves.

    Returns:
        Chunks over the stream's own slots. Cost O(L^2) for "absolute"; for "squared" O(L^2) at
        worst, and about O(L) where changes are many.

    Source: penalized least squares with PELT's pruning (Killick et al. 2012).
    """
    rule = Segments(penalty, min_tokens, cost)
    ends = segment_ends(lead.raw, lead.mask, lead.slots.sizes, lead.group, rule)
    return Chunks(lead.slots, ends | lead.slots.end_slots())


@register_chunker("windows", size=is_whole(at_least=1))
def windows(lead: LeadStream, size: int = 32) -> Chunks:
    """Windows of `size` tokens, the last one shorter; a control for the other chunkers.

    Cost O(L / size).
    """
    lengths = lead.slots.lengths
    size = min(size, int(lengths.max()))
    counts = torch.where(lead.present, (lengths + size - 1) // size, 1)
    index = torch.arange(1, int(counts.max()) + 1, device=lengths.device)
    ends = torch.minimum(index * size, lengths[:, None]) - 1
    ends = torch.where(index < counts[:, None], ends, lengths[:, None] - 1)
    return Chunks(Slots(counts, lengths, ends))


@register_chunker("delimiters", needs="text", pattern=is_pattern)
def delimiters(lead: LeadStream, pattern: str = r"\n\s*$") -> Chunks:
    """A chunk ends with each token whose text matches a regular expression. Cost O(L).

    Raises:
        MethodError: the rollouts hold no token texts.
    """
    texts = lead.rollouts.tokens
    if texts is None:
        raise MethodError("'delimiters' needs rollouts with their tokens' texts", field="chunks")
    matches = re.compile(pattern).search
    rows = [
        [i for i, text in enumerate(row[:-1]) if matches(text)] + [len(row) - 1] for row in texts
    ]
    device = lead.raw.device
    counts = torch.tensor([len(row) for row in rows], device=device)
    ends = torch.tensor([end for row in rows for end in row], device=device)
    return Chunks(step_slots(ends, counts, lead.slots.lengths))


@register_chunker("sentences", needs="text")
def sentences(lead: LeadStream) -> Chunks:
    """`delimiters` at the ends of sentences and lines. Cost O(L)."""
    return delimiters(lead, pattern=r"[.!?。！？]['\")\]]*\s*$|\n\s*$")


@register_chunker(
    "cut_points",
    needs="student_logprobs",
    below=is_number(above=0, at_most=1),
    per_chunk=is_whole(at_least=1),
)
def cut_points(lead: LeadStream, below: float = 0.9, per_chunk: int = 5) -> Chunks:
    """A chunk ends with every `per_chunk`-th token that the policy gave a low probability.

        cut points  {t : p_student(t) < below};  a chunk ends with the m-th, the 2m-th, ...

    There a response could have gone another way, so its value may change there; chunks with equally
    many of them minimize the sum of the squares of their numbers. Cost O(L).

    Args:
        lead: the leading stream.
        below: the probability below which a token is a cut point, above 0 and at most 1.
        per_chunk: m, cut points per chunk; the last chunk may have fewer.

    Raises:
        MethodError: the rollouts hold no log-probs of the student.

    Source: SPO-chain (2505.23564) section 4; its experiments use 0.9 and 5. Differs: the paper's
        Eq. 3 fixes the number of chunks, and its code cuts before the 1st, the 6th, ... cut point.
    """
    stream = lead.rollouts.logprobs.get("student")
    if stream is None:
        raise MethodError("'cut_points' needs rollouts with student_logprobs", field="chunks")
    slots = lead.token_slots
    probable = dense_stream(stream, lead.rollouts).values >= math.log(below)
    cuts = slots.mask & lead.present[:, None] & ~probable
    ends = cuts & (cuts.cumsum(1) % per_chunk == 0)
    return Chunks(slots, ends | slots.end_slots())


@register_chunker("group_runs", eta=is_number(at_least=0))
def group_runs(lead: LeadStream, eta: float = ETA) -> Chunks:
    """Runs of equal values of the group's mean standardized signal; the group shares boundaries.

        u_t = (1/G) sum over i of N(s_i)_t, 0 past a response's end
        a new chunk where |u_t - u_{t-1}| > eta

    Cost O(L). On real-valued signals nearly every token becomes a chunk.

    Source: PASS (2606.29296) Algorithm 2. Differs: divided by G throughout, so that another
        response's end is a boundary.
    """
    lengths = lead.slots.lengths
    slots = lead.token_slots
    z = slots.read(lead.standardized, lead.slots)
    mean = lead.group.mean_row(z)
    jumps = _jumps(mean, mean.abs().amax(1, keepdim=True), eta)
    if not any_true(jumps):
        return Chunks(whole_responses(lengths))
    if all_true(lead.present) and _everywhere(jumps, lengths, lead.group):
        return Chunks(slots)
    return Chunks(slots, _close(jumps[lead.group.index] & lead.present[:, None], slots))


def _everywhere(jumps: Tensor, lengths: Tensor, group: Group) -> bool:
    """Whether every group jumps between all tokens of its longest response."""
    longest = lengths.new_zeros(group.count).scatter_reduce_(0, group.index, lengths, "amax")
    places = torch.arange(jumps.shape[1], device=jumps.device)
    return all_true(jumps | (places >= longest[:, None] - 1))


def _jumps(values: Values, largest: Tensor, eta: float) -> Bool[Tensor, "rollout between"]:
    """Where neighbours differ by more than eta, and by more than rounding could make them."""
    least = (TOLERANCE * largest).clamp(min=eta)
    return (values[:, 1:] - values[:, :-1]).abs_() > least


def _ends(jumps: Bool[Tensor, "rollout between"], lead: LeadStream) -> Mask:
    return _close(jumps & lead.mask[:, 1:], lead.slots)


def _close(jumps: Bool[Tensor, "rollout between"], slots: Slots) -> Mask:
    """Chunk ends from the jumps between slots: before each jump, and at the response's end."""
    ends = torch.nn.functional.pad(jumps, (0, 1)) & slots.mask
    return ends.logical_or_(slots.end_slots())
