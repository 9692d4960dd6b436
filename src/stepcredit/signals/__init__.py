"""Process signals: reward models, teachers, language models and programs that score responses."""

from stepcredit.signals.cache import Cached
from stepcredit.signals.combine import Affine, Clipped, Smoothed, Weighted, rescaled
from stepcredit.signals.responses import Response
from stepcredit.signals.score_maps import Aggregated, CappedFiller, Difference, Discounted
from stepcredit.signals.server_statistics import ServedStatistics, ServerStatistics
from stepcredit.signals.signal import Signal
from stepcredit.signals.signal_registry import register_signal, signals
from stepcredit.signals.splitting import (
    BlankLine,
    Newline,
    NewlineTokens,
    Regex,
    Sentence,
    Splitter,
    Tags,
    register_splitter,
    splitter,
)

__all__ = [
    "Affine",
    "Aggregated",
    "BlankLine",
    "Cached",
    "CappedFiller",
    "Clipped",
    "Difference",
    "Discounted",
    "Newline",
    "NewlineTokens",
    "Regex",
    "Response",
    "Sentence",
    "ServedStatistics",
    "ServerStatistics",
    "Signal",
    "Smoothed",
    "Splitter",
    "Tags",
    "Weighted",
    "register_signal",
    "register_splitter",
    "rescaled",
    "signals",
    "splitter",
]
