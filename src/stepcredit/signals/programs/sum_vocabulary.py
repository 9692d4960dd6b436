"""Words that may stand beside a sum in a text, and words that make it a part of something else."""

from __future__ import annotations

_SHORT = """
is so to be we at in or if as on an it do am me us up no go he by of ok hr ft cm mm km kg mg ml
lb oz mi yd pm eg ie vs
"""
_OPERATORS = """
of by times plus minus mod modulo over than per from log ln lg exp sin cos tan cot sec csc sqrt
root cube square squared cubed sum product difference quotient half twice thrice double triple
quarter quarters third thirds fourth fifth fifths sixth tenth tenths hundred hundreds thousand
thousands million millions billion billions trillion dozen gcd lcm max min floor ceil ceiling
abs det lim choose pick two three four five six seven eight nine ten eleven twelve twenty
thirty forty fifty hundredth between through number factorial divides
"""
_LABELS = """
day days week weeks month months year years step case part round stage level column box bag
group team player person question problem option method equation exercise example figure table
chapter section page pages term digit position game test trial line lines age ages room class
grade phase condition choice item no
"""
_ASSERTING = """
so that get gets have gives give given then thus hence since because and find means therefore
becomes obtain yields see know e compute computing calculate need write or simplify simplifies
to check note now also but
"""
_COMMANDS = """
quad qquad implies Rightarrow Longrightarrow rightarrow longrightarrow to therefore because iff
Leftrightarrow approx leq geq le ge lt gt neq ne displaystyle textstyle item hline newline
noindent ldotp land lor Leftarrow leftarrow sim simeq cong
"""
_AMOUNTS = """
age amount area balance base bill capacity change combination commission cost count decrease
difference discount distance earning fee gain height income increase interest length loss
perimeter period price profit rate remainder rest result salary savings score speed sum surplus
time tip total value volume weight width
"""
_PERIODS = """
day night week month year hour minute second piece person share head pound gallon mile box bag
pair unit trip ticket lesson show game bottle can cup slice dozen
"""
SHORT = frozenset(_SHORT.split())
"""Words of two letters; others are products or names, as `ab` and `AB`."""
OPERATORS = frozenset(_OPERATORS.split())
"""Words that join what follows them to something else, or scale what stands before them."""
LABELS = frozenset(_LABELS.split())
"""Words after which a number is a name, as in `day 1 * 2 = 20 pages`."""
ASSERTING = frozenset(_ASSERTING.split())
"""Words after which a bare number begins an equation, as `so 7 = 3 + 4`; not `die 5 = 25`."""
COMMANDS = frozenset(_COMMANDS.split())
"""Commands of LaTeX that end what stands before them and are no part of a sum."""
AMOUNTS = frozenset(_AMOUNTS.split())
"""Words before `of` that name what is summed, as in `a total of 3 + 4`."""
PERIODS = frozenset(_PERIODS.split())
"""Words after `a`, where that letter is no variable, as in `$7 a day`."""
