"""Programs as process signals: exact checks of what a step says, and any function of yours."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib import import_module
from typing import Any

from stepcredit.errors import SettingError, SignalError
from stepcredit.settings.fields import check_fields, declare, number
from stepcredit.signals.arithmetic import value_of
from stepcredit.signals.registry import register_signal
from stepcredit.signals.responses import Response, at
from stepcredit.signals.signal import Scored, Signal
