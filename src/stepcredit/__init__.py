"""Credit assignment for process-supervised reinforcement learning of LLM reasoners.

Step scores, teacher log-probs, outcome and format rewards in; one advantage a token out.
"""

from stepcredit.credit import (
    ADCA,
    Credit,
    DrGRPO,
    Estimator,
    Explanation,
    GDPO,
    GOPD,
    GRPO,
    Moments,
    OPD,
    PASS,
    PASSMin,
    PRIME,
    PURE,
    ProcessGRPO,
    RLOO,
    estimator,
    methods,
    register,
)
from stepcredit.data import Advantages, Rollouts, Steps, TokenAdvantages, Tokens

__version__ = "0.1.0"

__all__ = [
    "ADCA",
    "Advantages",
    "Credit",
    "DrGRPO",
    "Estimator",
    "Explanation",
    "GDPO",
    "GOPD",
    "GRPO",
    "Moments",
    "OPD",
    "PASS",
    "PASSMin",
    "PRIME",
    "PURE",
    "ProcessGRPO",
    "RLOO",
    "Rollouts",
    "Steps",
    "TokenAdvantages",
    "Tokens",
    "estimator",
    "methods",
    "register",
]
