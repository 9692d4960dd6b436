"""Unicode signs of an answer as LaTeX, and full-width characters as ASCII."""

from __future__ import annotations

import re

_SIGNS = {
    "\u2212": "-", "\u2013": "-", "\u2014": " - ", "\u00d7": r"\times ", "\u00b7": r"\cdot ",
    "\u22c5": r"\cdot ", "\u2219": r"\cdot ", "\u00f7": r"\div ", "\u03c0": r"\pi ",
    "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2a7d": r"\le ",
    "\u2a7e": r"\ge ", "\u2260": r"\ne ", "\u2248": r"\approx ", "\u00b0": r"^\circ ",
    "\u2103": r"^\circ C", "\u2109": r"^\circ F", "\u222a": r"\cup ", "\u2229": r"\cap ",
    "\u2208": r"\in ", "\u211d": r"\mathbb{R}", "\u00b1": r"\pm ", "\u2213": r"\mp ",
    "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ", "\u00bd": r"\frac{1}{2}",
    "\u00bc": r"\frac{1}{4}", "\u00be": r"\frac{3}{4}", "\u2153": r"\frac{1}{3}",
    "\u2154": r"\frac{2}{3}", "\u215b": r"\frac{1}{8}", "\u221a": r"\sqrt ",
    "\u2205": r"\emptyset ", "\u2026": r"\ldots ", "\u22ef": r"\ldots ", "\u27e8": "(",
    "\u27e9": ")", "\u00a0": " ", "\u2009": " ", "\u200a": " ", "\u2007": " ", "\u202f": " ",
    "\u3000": " ", "\uff0c": ", ", "\u3001": ", ", "\u3002": ".", "\u2044": "/", "\u00b5": r"\mu ",
    "\u03bc": r"\mu ", "\u03a9": r"\Omega ", "\u2126": r"\Omega ",
    r"\lbrace": r"\{", r"\rbrace": r"\}", r"\varnothing": r"\emptyset",
}  # fmt: skip
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x2236: ":"}
_RAISED = "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079\u207a\u207b"
_SUPERSCRIPT = re.compile(f"[{_RAISED}]+")
_LOWERED = str.maketrans(_RAISED, "0123456789+-")
_ROOT_OF_DIGITS = re.compile("\u221a([0-9]+)")


def latex_signs(answer: str) -> str:
    r"""The answer with LaTeX for mathematical signs of Unicode, and ASCII for full-width signs.

    Digits of other scripts do not become digits.

    Example:
        >>> latex_signs("\uff0d2\u03c0"), latex_signs("x\u00b2"), latex_signs("\u221a12")
        ('-2\\pi ', 'x^{2}', '\\sqrt{12}')
    """
    answer = _ROOT_OF_DIGITS.sub(r"\\sqrt{\1}", answer)
    answer = _SIGN.sub(lambda sign: _SIGNS[sign.group()], answer).translate(_FULL_WIDTH)
    return _SUPERSCRIPT.sub(lambda raised: f"^{{{raised.group().translate(_LOWERED)}}}", answer)
