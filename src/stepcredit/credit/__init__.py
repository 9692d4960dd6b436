"""The mathematics: group statistics, fusion, chunks, returns, and the methods they compose to."""

from stepcredit.credit.baselines import ADCA, GDPO, GRPO, RLOO, DrGRPO, ProcessGRPO
from stepcredit.credit.batch_norm import Moments
from stepcredit.credit.estimator import Credit, Estimator
from stepcredit.credit.estimators import PASS
from stepcredit.credit.explain import Explanation
from stepcredit.credit.logprobs import GOPD, OPD, PRIME
from stepcredit.credit.pass_min import PASSMin
from stepcredit.credit.pure import PURE
from stepcredit.credit.registry import estimator, methods, register

__all__ = [
    "ADCA",
    "GDPO",
    "GOPD",
    "GRPO",
    "OPD",
    "PASS",
    "PRIME",
    "PURE",
    "RLOO",
    "Credit",
    "DrGRPO",
    "Estimator",
    "Explanation",
    "Moments",
    "PASSMin",
    "ProcessGRPO",
    "estimator",
    "methods",
    "register",
]
