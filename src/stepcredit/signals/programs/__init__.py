"""Signals computed by a program: checked sums, gold hops, shared prefixes, any function."""

from stepcredit.signals.programs.checked import Arithmetic, Equations, Program
from stepcredit.signals.programs.hops import Hops
from stepcredit.signals.programs.prefixes import SharedPrefix

__all__ = ["Arithmetic", "Equations", "Hops", "Program", "SharedPrefix"]
