"""Gold facts of multi-hop questions as a process signal: which step states a hop first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepcredit.errors import RolloutError
from stepcredit.settings.fields import check_fields, number
from stepcredit.signals.responses import Response
from stepcredit.signals.signal import IndexedScores, Signal
from stepcredit.signals.signal_registry import register_signal

Hop = tuple[str, ...]
"""The names that a step must mention, all of them, to state the hop."""


def _of_triples(facts: Mapping[str, Any]) -> list[Hop]:
    return [(subject, object) for subject, _, object in facts["evidences"]]


def _of_decomposition(facts: Mapping[str, Any]) -> list[Hop]:
    return [(hop["answer"],) for hop in facts["question_decomposition"]]


def _of_titles(facts: Mapping[str, Any]) -> list[Hop]:
    return [(title,) for title in dict.fromkeys(title for title, _ in facts["supporting_facts"])]


def _of_hops(facts: Mapping[str, Any]) -> list[Hop]:
    if isinstance(facts["hops"], str):
        raise TypeError("expected a list")
    return [(hop,) if isinstance(hop, str) else tuple(hop) for hop in facts["hops"]]


_SOURCES: dict[str, Callable[[Mapping[str, Any]], list[Hop]]] = {
    "hops": _of_hops,
    "evidences": _of_triples,
    "question_decomposition": _of_decomposition,
    "supporting_facts": _of_titles,
}


def gold_hops(facts: Mapping[str, Any]) -> list[Hop] | None:
    """The hops of a question, from the fields of its dataset.

    Args:
        facts: holds `hops` (texts, or lists of texts that belong together), or 2WikiMultihopQA's
            `evidences` (subject and object of each triple), MuSiQue's `question_decomposition`
            (each answer), or HotpotQA's `supporting_facts` (each title).

    Returns:
        The names that each hop mentions; None where there is no such field.

    Example:
        >>> gold_hops({"evidences": [["Get Low", "performer", "Dillon Francis"]]})
        [('Get Low', 'Dillon Francis')]
        >>> gold_hops({"hops": ["Paris", ["Paris", "France"]]})
        [('Paris',), ('Paris', 'France')]
    """
    for field, hops in _SOURCES.items():
        if field in facts:
            return hops(facts)
    return None


def words(text: str) -> str:
    """The text's words in lower case between single spaces, for looking up whole words.

    Example:
        >>> words("The U.S., in 1999!")
        ' the u s in 1999 '
    """
    found = re.findall(r"[^\W_]+", text.casefold())
    return f" {' '.join(found)} "


@register_signal("hops")
@dataclass(frozen=True)
class Hops(Signal):
    """Hops of a multi-hop question that a step states first.

        s_j = found if step j states a gold hop that no step before it stated, else missed

    A step states a hop when it mentions all of its names, as whole words and whatever their case.

    Args:
        found: score of a step that states a new hop.
        missed: score of any other step.

    Raises:
        SettingError: a field out of range.
        RolloutError: a response without hops among its facts.

    Example:
        >>> from stepcredit.signals.splitting import Newline
        >>> facts = {"hops": [["Get Low", "Dillon Francis"], ["October 5, 1987"]]}
        >>> text = "Get Low is by Dillon Francis.\\nI know Get Low.\\nBorn October 5, 1987."
        >>> Hops().scores(Newline()([Response.of_text("?", text, facts=facts)]))
        [[1.0, 0.0, 1.0]]

    The supporting facts come from the data sets.
    """

    grain = "steps"
    found: float = number(1.0, "score of a step that states a hop for the first time")
    missed: float = number(0.0, "score of any other step")

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def identity(self) -> dict[str, Any]:
        return {"signal": self.name, "found": self.found, "missed": self.missed}

    def content(self, response: Response) -> Any:
        return [response.step_texts, self._hops(response)]

    def stream(self, responses: Sequence[Response]) -> Iterator[IndexedScores]:
        for index, response in enumerate(responses):
            yield index, self._scores(response)

    def _scores(self, response: Response) -> list[float]:
        wanted = [[words(name) for name in hop] for hop in self._hops(response)]
        scores = []
        for step in map(words, response.step_texts):
            stated = [hop for hop in wanted if all(name in step for name in hop)]
            wanted = [hop for hop in wanted if hop not in stated]
            scores.append(self.found if stated else self.missed)
        return scores

    def _hops(self, response: Response) -> list[Hop]:
        try:
            hops = gold_hops(response.facts)
        except (TypeError, ValueError, KeyError) as error:
            reason = f"can't be read as gold facts: {type(error).__name__}: {error}"
            raise RolloutError(reason, field="hops", place=response.name) from None
        if not hops:
            reason = f"needs one of {', '.join(_SOURCES)}"
            raise RolloutError(reason, field="hops", place=response.name)
        for hop in hops:
            if not hop or not all(isinstance(name, str) and words(name).strip() for name in hop):
                raise RolloutError(
                    f"expected names, got {hop!r}", field="hops", place=response.name
                )
        return hops
