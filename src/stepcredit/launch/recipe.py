"""Reads the settings of `python -m stepcredit.launch`: the YAML file's keys and the flags."""

from __future__ import annotations

import os
import re
from argparse import Action
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from textwrap import wrap
from types import NoneType
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from trl import GRPOConfig, ModelConfig, TrlParser

from stepcredit.engines.trl.config import OLD_NAMES, StepCreditConfig, new_name
from stepcredit.errors import SettingError
from stepcredit.launch.recipe_fields import drop_other_fields, mapping_of, merge_fields
from stepcredit.settings.registry import hint

PROGRAM = "python -m stepcredit.launch"
RESUME = "resume_from_checkpoint"
"""A text; but YAML reads `true` as a bool."""
IMPORT = "import"
"""A word of Python's, so that it can't be a field of `RecipeArguments`."""
IMPORT_HELP = (
    "Modules to import first, which register methods, signals, rewards or splitters of your own: "
    "FILE.py, or a dotted name. They run as code."
)
INTRODUCTION = f"""\
{PROGRAM} --config RECIPE.yaml [--KEY VALUE ...]

Trains any causal language model on any dataset with TRL's GRPOTrainer and stepcredit's advantages.
The YAML file holds the keys below; a flag of the same name overrides a key. Of a key of fields it
overrides the fields that it names, and the others stay. Flags that are no keys:

  --check      trains nothing: checks all that the run needs, scores made-up responses, and prints
               every fault in one list, the credit, and an estimate of memory and disk
  --smoke      trains two steps on the CPU with tiny random models and built-in rows, and prints
               which keys it changed
  --help-all   lists every key, TRL's too

"""


@dataclass
class RecipeArguments:
    """Which rows, prompts and rewards to train with.

    Args:
        each: see its help.

    Raises:
        EngineError: a key that holds a mapping holds something else.

    Example:
        >>> RecipeArguments(dataset_name="rows.jsonl", rewards={"right": "maths"}).rewards
        {'right': 'maths'}
    """

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "Rows: FILE.jsonl, .json, .parquet, .csv; a folder; a name on the Hub."},
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Which configuration of the dataset."}
    )
    dataset_train_split: str = field(
        default="train", metadata={"help": "Rows to train on, such as 'train' or 'train[:5000]'."}
    )
    eval_dataset_name: str | None = field(
        default=None, metadata={"help": "Rows to evaluate on. None: the rows of dataset_name."}
    )
    dataset_test_split: str = field(
        default="test",
        metadata={"help": "Rows to evaluate on, where eval_strategy is not 'no'."},
    )
    columns: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": 'New columns by name, such as {"prompt": "problem", "answer": '
            '"reward_model.ground_truth"}. The column prompt is a text or messages; rewards and '
            "signals read the others."
        },
    )
    system_prompt: str | None = field(
        default=None, metadata={"help": "System turn of each prompt."}
    )
    prompt_template: str | None = field(
        default=None,
        metadata={"help": "User's turn; {prompt} and other columns in braces are filled in."},
    )
    chat: bool = field(
        default=True,
        metadata={"help": "Whether a text becomes a user's turn for the model's chat template."},
    )
    max_prompt_length: int | None = field(
        default=None, metadata={"help": "Rows whose prompts have more tokens are left out."}
    )
    tools: list[str] | None = field(
        default=None,
        metadata={
            "help": "Functions that the policy may call, each MODULE:FUNCTION with typed arguments "
            "and a docstring that says what they are."
        },
    )
    rewards: dict[str, str] | str | None = field(
        default=None,
        metadata={
            "help": 'Reward functions, such as {"accuracy": "maths", "layout": "format"}: one that '
            "`stepcredit rewards` lists, or MODULE:FUNCTION. The one that judges the layout is the "
            "format reward, the others' sum the outcome, unless the keys below say otherwise."
        },
    )
    reward_fields: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": 'Fields of rewards by name, such as {"layout": {"template": "boxed"}}.'},
    )

    def __post_init__(self) -> None:
        for name in ("columns", "rewards", "reward_fields"):
            setattr(self, name, mapping_of(getattr(self, name), name))


KINDS: tuple[Any, ...] = (RecipeArguments, StepCreditConfig, ModelConfig)


@dataclass(frozen=True)
class Recipe:
    """The settings of one training run.

    Args:
        arguments, training, model: the keys, checked.
        notes: lines to print, such as which keys were left out.
    """

    arguments: RecipeArguments
    training: StepCreditConfig
    model: ModelConfig
    notes: tuple[str, ...] = ()


class RecipeParser(TrlParser):
    """TrlParser for the three sets of keys, which reports an error in one line.

    Example:
        >>> values, notes = RecipeParser().values(["--method", "grpo", "--max_steps", "3"])
        >>> values["method"], values["max_steps"], notes
        ('grpo', 3, ())
    """

    def __init__(self) -> None:
        super().__init__(KINDS, prog=PROGRAM, add_help=False, allow_abbrev=False)
        self.add_argument(f"--{IMPORT}", nargs="+", metavar="MODULE", help=IMPORT_HELP)

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message about a flag or value, with the key first.

        Raises:
            SettingError: always.
        """
        found = re.match(r"argument --(\w+)[^:]*: (.*)", message)
        raise SettingError(*found.groups()[1:], field=found[1]) if found else SettingError(message)

    def values(
        self, flags: Sequence[str], faults: list[SettingError] | None = None
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Every key's value: the flag's, else the YAML's, else the default; and lines to print.

        Args:
            flags: of the command line, without `--smoke`, `--check` and `--help`.
            faults: gets the unknown flags, and the errors of the YAML's keys, which are then left
                out; None: the first is raised.

        Raises:
            SettingError: an unknown key or flag, a value of the wrong type, or an unreadable file.
        """
        path, rest = config_of(flags)
        read = {} if path is None else self._take(path, faults)
        rest = _with_new_names(rest)
        namespace, unknown = self.parse_known_args(rest)
        known = [f"--{name}" for name in vars(namespace)]
        named = [each.partition("=")[0] for each in unknown if each.startswith("--")]
        for flag in named or unknown[:1]:  # the others are their values
            fault = SettingError(f"unknown flag{near(flag, known)}", field=flag)
            if faults is None:
                raise fault
            faults.append(fault)
        values = vars(namespace)
        given = {flag[2:].partition("=")[0].replace("-", "_") for flag in rest if flag[:2] == "--"}
        notes = [*drop_other_fields(values, given), *merge_fields(values, given, read, str(path))]
        return values, tuple(notes)

    def _take(self, path: str, faults: list[SettingError] | None) -> dict[str, Any]:
        """Set the YAML's keys as defaults, and those under `env` as environment variables.

        Returns:
            The YAML's keys, without those that are at fault.
        """
        read = read_yaml(path)
        variables = mapping_of(read.pop("env", None), "env")
        os.environ.update({name: str(value) for name, value in variables.items()})
        read = {new_name(name, read): value for name, value in read.items()}
        wrong = list(self._key_faults(path, read))
        if wrong and faults is None:
            raise wrong[0]
        for error in wrong:
            faults.append(error)  # type: ignore[union-attr]
            read.pop(str(error.field), None)
        self.set_defaults_with_config(**read)
        return read

    def _key_faults(self, path: str, read: Mapping[str, Any]) -> Iterator[SettingError]:
        """Unknown keys, and values of the wrong type."""
        known = [IMPORT, *(name for kind in self.dataclass_types for name in names_of(kind))]
        for name in read:
            if name not in known:
                reason = f"unknown key{near(str(name), known)}"
                yield SettingError(reason, field=name, place=path)
        hints = {
            name: annotation
            for kind in self.dataclass_types
            for name, annotation in get_type_hints(kind).items()
        }
        hints[IMPORT] = list[str] | str | None
        for action in self._actions:
            if action.dest not in read:
                continue
            value = read[action.dest]
            annotation = str | bool | None if action.dest == RESUME else hints[action.dest]
            fault = fault_of(action, value) or fault_by_hint(annotation, value)
            if fault is not None:
                yield SettingError(fault, field=action.dest, place=path)


def fault_of(action: Action, value: Any) -> str | None:
    """What is wrong with the type of a YAML's value, which argparse does not check; None: nothing.

    Example:
        >>> from argparse import ArgumentParser
        >>> action = ArgumentParser().add_argument("--steps", type=int)
        >>> fault_of(action, [3]), fault_of(action, 3), fault_of(action, "1e3")
        ('expected int, got [3]', None, None)
    """
    kind = getattr(action.type, "__name__", "")
    if value is None or (isinstance(value, str) and action.choices is None):
        return None
    if action.choices is not None:
        known = [str(choice) for choice in action.choices]
        return None if value in known else f"{value!r} is unknown{hint(str(value), known)}"
    many = isinstance(value, list) and action.nargs == "+"
    numbers = {"int": int, "float": int | float}.get(kind)
    for each in value if many else [value]:
        is_number = isinstance(each, int | float) and not isinstance(each, bool)
        if numbers and not (is_number and isinstance(each, numbers)):
            return f"expected {kind}, got {each!r}"
    if kind == "string_to_bool" and not isinstance(value, bool):
        return f"expected true or false, got {value!r}"
    return None


def fault_by_hint(annotation: Any, value: Any) -> str | None:
    """What is wrong with a YAML's value by its field's annotation; None: nothing.

    It finds a null where none is allowed, and anything but a text where a text is expected.

    Example:
        >>> fault_by_hint(int, None), fault_by_hint(str | None, 5), fault_by_hint(str | None, None)
        ('expected int, got null', 'expected a text, got 5', None)
    """
    parts = set(get_args(annotation)) or {annotation}
    if value is None:
        name = getattr(annotation, "__name__", "a value")
        return None if {NoneType, Any} & parts else f"expected {name}, got null"
    if parts - {NoneType} == {str} and not isinstance(value, str):
        return f"expected a text, got {value!r}"
    return None


def near(name: str, known: Sequence[str]) -> str:
    """ ", did you mean ...?" for an unknown name; an empty text where no known name is similar."""
    meant = hint(name, list(known))
    return meant if meant.startswith(",") else ""


def names_of(kind: type) -> list[str]:
    """The keys of a dataclass."""
    return [each.name for each in fields(kind) if each.init]


def config_of(flags: Sequence[str]) -> tuple[str | None, list[str]]:
    """The file after `--config`, and the other flags.

    Raises:
        SettingError: no file follows `--config`.

    Example:
        >>> config_of(["--config", "a.yaml", "--seed", "3"])
        ('a.yaml', ['--seed', '3'])
    """
    rest, path = list(flags), None
    for index, flag in enumerate(flags):
        if flag.startswith("--config="):
            path, rest = flag.partition("=")[2], [*flags[:index], *flags[index + 1 :]]
        elif flag == "--config":
            if index + 1 == len(flags):
                raise SettingError("expected a file", field="--config")
            path, rest = flags[index + 1], [*flags[:index], *flags[index + 2 :]]
    return path, rest


def _with_new_names(flags: Sequence[str]) -> list[str]:
    """The flags, with new names in place of old ones.

    Raises:
        EngineError: a setting is given under both names.
    """
    keys = [
        flag[2:].partition("=")[0].replace("-", "_") if flag.startswith("--") else ""
        for flag in flags
    ]
    return [
        f"--{new_name(key, keys)}{flag[2 + len(key) :]}" if key in OLD_NAMES else flag
        for key, flag in zip(keys, flags, strict=True)
    ]


def read_yaml(path: str) -> dict[str, Any]:
    """The keys of a recipe and their values.

    Raises:
        SettingError: there is no such file, or it holds no mapping.
    """
    try:
        read = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise SettingError(f"{path}: {reason}", field="--config") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or "is not YAML"
        raise SettingError(f"{line.strip()} {problem}".strip(), place=path) from error
    if not isinstance(read, dict):
        raise SettingError("expected keys and values", place=path)
    return read


def read_recipe(values: dict[str, Any], notes: Sequence[str] = ()) -> Recipe:
    """The keys as the dataclasses that check them.

    Raises:
        SettingError, EngineError, ValueError: a refused value.
    """
    arguments, training, model = (
        kind(**{name: values[name] for name in names_of(kind)}) for kind in KINDS
    )
    return Recipe(arguments, training, model, tuple(notes))


def help_text(*, everything: bool = False) -> str:
    """The help text: our own keys, or every key."""
    if everything:
        return RecipeParser().format_help()
    credit = set(names_of(StepCreditConfig)) - set(names_of(GRPOConfig)) - OLD_NAMES.keys()
    parts = [
        f"Your own code:\n{_line(IMPORT, IMPORT_HELP)}\n",
        _section("Rows, prompts and rewards", RecipeArguments, names_of(RecipeArguments)),
        _section("Credit", StepCreditConfig, credit),
        _section("Model", ModelConfig, ["model_name_or_path", "dtype", "use_peft"]),
    ]
    rest = "And every key of TRL's GRPOConfig and ModelConfig.\n"
    return INTRODUCTION + "\n".join(parts) + "\n" + rest


def _section(title: str, kind: type, names: Any) -> str:
    lines = [f"{title}:"]
    for each in fields(kind):
        if each.name in names:
            text = each.metadata["help"].replace("%%", "%")
            default = "" if each.default is None else f" [{each.default}]"
            lines.append(_line(each.name, f"{text}{default}"))
    return "\n".join(lines) + "\n"


def _line(name: str, text: str) -> str:
    return "\n".join(wrap(f"  {name:<22} {text}", 100, subsequent_indent=" " * 25))
