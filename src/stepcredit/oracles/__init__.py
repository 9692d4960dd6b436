"""Exact oracles: small tasks whose true advantages are known, and every estimator beside them.

`oracle_table` measures methods on every group that a policy can sample in six small tasks, with no
sampling error. `decided_claims` decides claims about mechanisms, and `turn_baseline_table` shows
which baselines of turn returns are biased. `stepcredit oracles` prints all three.
"""

from stepcredit.oracles.baseline_table import (
    TURN_BASELINES,
    TurnBaselineRow,
    turn_baseline_table,
)
from stepcredit.oracles.claim import Claim
from stepcredit.oracles.contestants import (
    CONTESTANTS,
    Contestant,
    Figure,
    OracleRow,
    credit_of,
    figures_of,
    oracle_table,
)
from stepcredit.oracles.decision_process import Move, Trajectory, World
from stepcredit.oracles.every_group import SignalledGroups, WorldGroups
from stepcredit.oracles.gradient_validity import MeanGradient, Validity, useful_groups
from stepcredit.oracles.identification import Identification, weighted_spearman
from stepcredit.oracles.mechanisms import decided_claims
from stepcredit.oracles.step_scores import SIGNALS, StepSignal
from stepcredit.oracles.worlds import WORLDS

__all__ = [
    "CONTESTANTS",
    "SIGNALS",
    "TURN_BASELINES",
    "WORLDS",
    "Claim",
    "Contestant",
    "Figure",
    "Identification",
    "MeanGradient",
    "Move",
    "OracleRow",
    "SignalledGroups",
    "StepSignal",
    "Trajectory",
    "TurnBaselineRow",
    "Validity",
    "World",
    "WorldGroups",
    "credit_of",
    "decided_claims",
    "figures_of",
    "oracle_table",
    "turn_baseline_table",
    "useful_groups",
    "weighted_spearman",
]
