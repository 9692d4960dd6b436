"""Removes from an answer what only sets it: dollar signs, colours, sizes, environments, spaces."""

from __future__ import annotations

import re

_COLOR = re.compile(
    r"\\(?:text)?color(?:box)?\s*(?:\[[^\[\]{}]{0,40}\]\s*)?\{[^{}]{0,40}\}"
    r"|\\(?:hspace|vspace|phantom|hphantom|label|tag)\*?\s*\{[^{}]{0,80}\}"
)
_DROPPED = re.compile(
    r"\\!|\\(?:displaystyle|textstyle|scriptstyle|left|right|[bB]igg?[lrm]?|large|Large|LARGE"
    r"|huge|Huge|small|tiny|normalsize|limits|allowbreak|bf|rm|it|pounds|euro|yen|textdollar"
    r"|texteuro|textsterling|textyen|ensuremath)(?![a-zA-Z])|[\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9]"
)
_SPACE = re.compile(r"(?<!\\)\\(?:[,;:>]|\s|q?quad(?![a-zA-Z]))|(?<!\\)~")
_DELIMITER = re.compile(r"\\?\$|(?<!\\)\\[()\[\]]")
_ROW_SPACE = re.compile(r"\\\\\s*\[-?[0-9.]+[a-z]{2}\]")
_ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\s*\{(?:aligned|align|alignedat|gathered|gather|split|equation|displaymath"
    r"|math|center|multline|eqnarray|cases)\*?\}"
)
_ROW_END = re.compile(r"\\\\")
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|approx|equiv|Rightarrow|implies)(?![a-zA-Z])")
_RENAMED = {
    "langle": "(", "rangle": ")", "leqslant": r"\le", "leqq": r"\le", "geqslant": r"\ge",
    "geqq": r"\ge", "lt": "<", "gt": ">", "dots": r"\ldots", "cdots": r"\ldots",
    "dotsc": r"\ldots", "imath": "i", "lor": r"\text{ or }", "vee": r"\text{ or }",
    "degree": r"^\circ", "tg": r"\tan", "ctg": r"\cot", "arctg": r"\arctan", "lvert": "|",
    "rvert": "|", "vert": "|",
}  # fmt: skip
_COMMAND = re.compile(r"\\(" + "|".join(_RENAMED) + r")(?![a-zA-Z])")
_BRACED_SIGN = re.compile(r"\{([:,;=])\}")
_DOTS = re.compile(r"\.{3,}")
_EMPTY = re.compile(r"\\(?:text|textrm|mathrm|mbox)\s*\{[\s.]*\}")


def without_layout(answer: str) -> str:
    r"""The answer without dollar signs, colours, sizes, `aligned` and other marks of layout.

    Lines of an environment become a list; a line that begins with a relation goes on the one
    before.

    Example:
        >>> without_layout(r"$\color{red}{7}\ $"), without_layout(r"3,\,4")
        (' {7}  ', '3, 4')
        >>> without_layout(r"\begin{aligned} x &= 3 \\ y &= 4 \end{aligned}").split()
        ['x', '=', '3', ',', 'y', '=', '4']
    """
    answer = _DROPPED.sub("", _COLOR.sub("", _ROW_SPACE.sub(r"\\\\", answer)))
    answer = _SPACE.sub(" ", _DELIMITER.sub(" ", answer))
    answer = _COMMAND.sub(lambda name: _RENAMED[name[1]] + " ", answer)
    answer = _BRACED_SIGN.sub(r"\1", answer)
    return _EMPTY.sub(" ", _DOTS.sub(r"\\ldots ", _without_environment(answer)))


def _without_environment(answer: str) -> str:
    plain = _ENVIRONMENT.sub(" ", answer)
    if plain == answer or ("cases" in answer and "&" in answer):
        return answer
    first, *rest = [row.strip() for row in _ROW_END.split(plain.replace("&", " "))]
    joined = [f" {row}" if _RELATION.match(row) else f" , {row}" for row in rest if row]
    return first + "".join(joined)
