"""The methods of credit assignment, and the stages that they are composed of."""

from stepcredit.credit.estimator import Estimator
from stepcredit.credit.explanation import Explanation
from stepcredit.credit.method_registry import register
from stepcredit.credit.methods.adca import ADCA
from stepcredit.credit.methods.distillation import GOPD, OPD
from stepcredit.credit.methods.gdpo import GDPO
from stepcredit.credit.methods.gigpo import GiGPO
from stepcredit.credit.methods.grpo import GRPO, RLOO, DrGRPO
from stepcredit.credit.methods.grpo_process import ProcessGRPO
from stepcredit.credit.methods.mix import Mix
from stepcredit.credit.methods.pass_ import PASS
from stepcredit.credit.methods.pass_min import PASSMin
from stepcredit.credit.methods.prime import PRIME
from stepcredit.credit.methods.pure import PURE
from stepcredit.credit.methods.redistribute import Redistribute
from stepcredit.credit.methods.reinforce_plus_plus import ReinforcePlusPlus
from stepcredit.credit.methods.reweight import Reweight
from stepcredit.credit.methods.rlsd import RLSD
from stepcredit.credit.methods.sign_size import SignSize
from stepcredit.credit.methods.turn_return import TurnReturn
from stepcredit.credit.reads import Reads
from stepcredit.credit.slot_credit import Credit
from stepcredit.credit.stages.batch_norm import Moments

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
    "RLSD",
    "Credit",
    "DrGRPO",
    "Estimator",
    "Explanation",
    "GiGPO",
    "Mix",
    "Moments",
    "PASSMin",
    "ProcessGRPO",
    "Reads",
    "Redistribute",
    "ReinforcePlusPlus",
    "Reweight",
    "SignSize",
    "TurnReturn",
    "register",
]
