"""Rubrics of judges as YAML: which labels a step can have, and how a judge is asked for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stepcredit.errors import FileError, SettingError, SignalError
from stepcredit.requires import require
from stepcredit.settings.fields import is_name, is_number
from stepcredit.settings.registry import hint
from stepcredit.settings.yaml_files import yaml_mapping
from stepcredit.signals.responses import Response
from stepcredit.signals.served.prompts import check_variables

FOLDER = Path(__file__).with_name("rubrics")
VARIABLES = ("prompt", "steps", "count", "labels", "rubric")
_EXAMPLE = Response(
    "1 + 1 + 1 = ?",
    "1 + 1 = 2.\n\n2So 3.",
    ((0, 12), (12, 13), (13, 18)),
    (12, 13, 18),
    own=(True, False, True),
)
_NUMBER = is_number()


@dataclass(frozen=True)
class Label:
    """What a step can be called, and what that is worth.

    Args:
        name: one word.
        score: of a step with this label.
        about: when a step has it, for the judge.
    """

    name: str
    score: float
    about: str


@dataclass(frozen=True)
class RubricRecipe:
    """How a judge labels the steps of a response.

    Args:
        labels: at least one.
        system, question: templates of the two messages (Jinja), which may use `VARIABLES`. `steps`
            holds for each step its `text`, and its `number` if the policy wrote it.
        unlisted: the score of a step that an answer does not list; None: every step is listed.
        quorum: the least share of votes that must list a step; else it counts as unlisted.
        source: where the rubric comes from.
    """

    labels: tuple[Label, ...]
    system: str
    question: str
    unlisted: float | None = None
    quorum: float = 0.0
    source: str = ""

    def messages(self, response: Response, rubric: str = "") -> list[dict[str, str]]:
        """The messages that ask for the labels of a response.

        Args:
            response: split into steps.
            rubric: further words about the labels.

        Raises:
            SignalError: a template fails on this response.
        """
        from stepcredit.signals.served.templates import TemplateFailed, fill

        values = self._values(response, rubric)
        found = []
        for role, field in (("system", "system"), ("user", "question")):
            try:
                content = fill(getattr(self, field), values)
            except TemplateFailed as failed:
                reason = f"fails: {failed}"
            else:
                found.append({"role": role, "content": content})
                continue
            raise SignalError(reason, field=field, place=response.name)
        return found

    def _values(self, response: Response, rubric: str) -> dict[str, Any]:
        steps, count = [], 0
        for text, written in zip(response.step_texts, response.written_steps, strict=True):
            count += written
            steps.append({"text": text, "number": count if written else None})
        labels = [{"name": label.name, "about": label.about} for label in self.labels]
        given = {"prompt": response.prompt, "steps": steps, "count": count}
        return {**given, "labels": labels, "rubric": rubric}

    def check(self) -> None:
        """Refuse templates that do not parse, use an unknown variable, or fail on an example.

        Raises:
            SettingError: the error names the template.
        """
        for field in ("system", "question"):
            check_variables(getattr(self, field), field, VARIABLES)
        try:
            self.messages(_EXAMPLE, "Be strict.")
        except SignalError as error:
            raise SettingError(f"on an example: {error.reason}", field=error.field) from None


def rubric_recipes() -> list[str]:
    """The names of our own rubrics.

    Example:
        >>> rubric_recipes()
        ['turn-roles', 'wrong-steps']
    """
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def rubric_recipe(name: str) -> RubricRecipe:
    """A rubric by its name, or from a YAML file.

    Args:
        name: of ours, or a path that ends in `.yaml` or `.yml`.

    Raises:
        SettingError: no such rubric, or one with a fault; it names the key.

    Example:
        >>> [(label.name, label.score) for label in rubric_recipe("wrong-steps").labels]
        [('wrong', -1.0)]
    """
    require("signals", "yaml", "jinja2")
    known = rubric_recipes()
    is_file = name.endswith((".yaml", ".yml"))
    if not is_file and name not in known:
        raise SettingError(f"no rubric {name!r}{hint(name, known)}", field="recipe")
    try:
        given = yaml_mapping(Path(name) if is_file else FOLDER / f"{name}.yaml")
        recipe = _recipe(given)
        recipe.check()
    except FileError as error:
        raise SettingError(str(error), field="recipe") from None
    except SettingError as error:
        raise error.at(under="recipe") from error.__cause__
    return recipe


def _recipe(given: Mapping[str, Any]) -> RubricRecipe:
    keys = [field.name for field in fields(RubricRecipe)]
    for key in given:
        if key not in keys:
            raise SettingError(f"no such key{hint(str(key), keys)}", field=str(key))
    for key in ("system", "question"):
        expected = is_name(given.get(key))
        if expected:
            raise SettingError(f"expected {expected}, got {given.get(key)!r}", field=key)
    unlisted, quorum = given.get("unlisted"), given.get("quorum", 0.0)
    if unlisted is not None:
        _check_number(unlisted, "unlisted")
    _check_number(quorum, "quorum")
    return RubricRecipe(
        labels=_labels(given.get("labels")),
        system=given["system"],
        question=given["question"],
        unlisted=unlisted,
        quorum=quorum,
        source=str(given.get("source", "")),
    )


def _labels(given: Any) -> tuple[Label, ...]:
    if not isinstance(given, Mapping) or not given:
        reason = f"expected {{label: {{score: ..., about: ...}}}}, got {given!r}"
        raise SettingError(reason, field="labels")
    found = []
    for name, told in given.items():
        place = f"labels.{name}"
        if not (isinstance(name, str) and name.isidentifier()) or name.casefold() == "none":
            raise SettingError("expected one word, and not none, which lists no step", field=place)
        if not isinstance(told, Mapping) or set(told) != {"score", "about"}:
            raise SettingError(f"expected score and about, got {told!r}", field=place)
        _check_number(told["score"], f"{place}.score")
        found.append(Label(name, float(told["score"]), " ".join(str(told["about"]).split())))
    return tuple(found)


def _check_number(value: Any, field: str) -> None:
    expected = _NUMBER(value)
    if expected:
        raise SettingError(f"expected {expected}, got {value!r}", field=field)
