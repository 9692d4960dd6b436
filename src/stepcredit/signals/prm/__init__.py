"""Learned process reward models, run here: protocols, heads, loading, and the signal `prm`."""

from stepcredit.signals.prm.heads import Classifier, HeadedModel, TwoLayerHead, ValueHead, WordHead
from stepcredit.signals.prm.local import LocalPRM
from stepcredit.signals.prm.protocol import PROTOCOLS, Protocol
from stepcredit.signals.prm.protocols import (
    MathShepherd,
    PurePRM,
    QwenMathPRM,
    ReasonFluxPRM,
    RLHFlow,
    Skywork,
    TokenClassifier,
)
from stepcredit.signals.prm.reading import Reading

__all__ = [
    "PROTOCOLS",
    "Classifier",
    "HeadedModel",
    "LocalPRM",
    "MathShepherd",
    "Protocol",
    "PurePRM",
    "QwenMathPRM",
    "RLHFlow",
    "Reading",
    "ReasonFluxPRM",
    "Skywork",
    "TokenClassifier",
    "TwoLayerHead",
    "ValueHead",
    "WordHead",
]
