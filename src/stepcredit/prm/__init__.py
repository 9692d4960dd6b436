"""Learned process reward models: protocols, heads, loading, and the signal `prm`."""

from stepcredit.prm.heads import Classifier, HeadedModel, TwoLayerHead, ValueHead, WordHead
from stepcredit.prm.local import LocalPRM
from stepcredit.prm.model_input import ModelInput
from stepcredit.prm.protocol import PROTOCOLS, Protocol
from stepcredit.prm.published_protocols import (
    MathShepherd,
    PurePRM,
    QwenMathPRM,
    ReasonFluxPRM,
    RLHFlow,
    Skywork,
    TokenClassifier,
)

__all__ = [
    "PROTOCOLS",
    "Classifier",
    "HeadedModel",
    "LocalPRM",
    "MathShepherd",
    "ModelInput",
    "Protocol",
    "PurePRM",
    "QwenMathPRM",
    "RLHFlow",
    "ReasonFluxPRM",
    "Skywork",
    "TokenClassifier",
    "TwoLayerHead",
    "ValueHead",
    "WordHead",
]
