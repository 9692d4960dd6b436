"""The stages of a method, as pure functions: everything that the author of a method imports.

A method composes four stages:

1. `standardize` and `standardize_scalar`: the group operator N of a stream's values;
2. `fuse_process` and `fuse_scalars`: the weighted sum of the streams, and the format gate;
3. `chunker` and `chunks_within_parts`: where credit may change along a response;
4. `return_to_go`, `divide_length`, `min_form`, `future_min`: one advantage per chunk.

`StateGroups` standardizes among the steps of a group that were taken in the same state.
Tables are dense (rollout, slot) in float64; a `Slots` maps their columns to tokens.
`number`, `whole`, `choice`, `flag`, `text` and `composed` declare a method's checked fields;
`is_number`, `is_whole`, `is_one_of` and `is_pattern` check the options of a chunker.

Example:
    >>> import torch
    >>> from stepcredit.credit.stages import Group, standardize
    >>> x, pair = torch.tensor([[1.0], [0.0]]).double(), Group(torch.tensor([0, 0]), 1)
    >>> standardize(x, torch.ones(2, 1).bool(), pair, "center").tolist()
    [[0.5], [-0.5]]
"""

from stepcredit.credit.stages.batch_norm import BatchNorm, Moments
from stepcredit.credit.stages.chunker_registry import chunker, register_chunker
from stepcredit.credit.stages.chunks import Chunker, Chunks, LeadStream, chunks_within_parts
from stepcredit.credit.stages.fusion import (
    canonical_weights,
    fuse_process,
    fuse_scalars,
    gated_mask,
    standardize_scalar,
    weighted_streams,
)
from stepcredit.credit.stages.groups import Group, standardize, std_ratio, weighted_mean
from stepcredit.credit.stages.process_streams import DenseStream, dense_stream, process_stream
from stepcredit.credit.stages.returns import (
    divide_length,
    future_min,
    min_form,
    residual,
    return_to_go,
    whiten,
)
from stepcredit.credit.stages.state_groups import StateGroups
from stepcredit.credit.stages.token_weights import mean_one, softmax_weights
from stepcredit.credit.stages.turn_baselines import trajectory_baseline, turn_baseline
from stepcredit.data.slots import Slots, every_token, step_slots, whole_responses
from stepcredit.settings.fields import (
    choice,
    composed,
    flag,
    is_number,
    is_one_of,
    is_pattern,
    is_whole,
    number,
    text,
    whole,
)

__all__ = [
    "BatchNorm",
    "Chunker",
    "Chunks",
    "DenseStream",
    "Group",
    "LeadStream",
    "Moments",
    "Slots",
    "StateGroups",
    "canonical_weights",
    "choice",
    "chunker",
    "chunks_within_parts",
    "composed",
    "dense_stream",
    "divide_length",
    "every_token",
    "flag",
    "fuse_process",
    "fuse_scalars",
    "future_min",
    "gated_mask",
    "is_number",
    "is_one_of",
    "is_pattern",
    "is_whole",
    "mean_one",
    "min_form",
    "number",
    "process_stream",
    "register_chunker",
    "residual",
    "return_to_go",
    "softmax_weights",
    "standardize",
    "standardize_scalar",
    "std_ratio",
    "step_slots",
    "text",
    "trajectory_baseline",
    "turn_baseline",
    "weighted_mean",
    "weighted_streams",
    "whiten",
    "whole",
    "whole_responses",
]
