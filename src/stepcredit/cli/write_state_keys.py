"""`stepcredit states`: writes the state that each step was taken in."""

from __future__ import annotations

from typing import Annotated

import typer

from stepcredit.cli.options import Imports, Input, import_modules
from stepcredit.cli.score import Chat, Question, Split, Tokenizer, row_reader
from stepcredit.cli.shape import Output
from stepcredit.errors import SettingError

Source = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="WHAT",
        help="tool-calls, the last calls before the step; or MODULE:FUNCTION, which takes a "
        "response and gives one key per step.",
    ),
]
Last = Annotated[
    list[int],
    typer.Option(
        metavar="N",
        help="Calls that make a state; may be repeated, from the most to the fewest, for several "
        "keys per step. Default: 1.",
        show_default=False,
        default_factory=list,
    ),
]
Tags = Annotated[
    list[str],
    typer.Option(
        "--tag",
        metavar="TAG",
        help="Tag of the calls, such as search; may be repeated. Default: tool_call, in JSON.",
        show_default=False,
        default_factory=list,
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Overwrite states that are there.", show_default=False)
]


def states_command(
    source: Input,
    output: Output,
    *,
    states: Source = "tool-calls",
    last: Last,
    tags: Tags,
    replace: Replace = False,
    tokenizer: Tokenizer = None,
    split: Split = None,
    question: Question = "prompt",
    chat: Chat = False,
    imports: Imports,
) -> None:
    """Write the rollouts with the state that each step was taken in, in the same order.

    `gigpo` compares the steps of a group that were taken in the same state.
    OUT may be the same file as IN; it is replaced only once all rows are written.
    """
    from stepcredit.signals.state_file import write_states
    from stepcredit.signals.state_keys import state_function

    import_modules(imports)
    counts = last[0] if len(last) == 1 else last or 1
    try:
        found = state_function(states, counts, tags)
    except SettingError as error:
        option = {"last": "--last", "tags": "--tag"}.get(error.field or "", "--from")
        raise error.at(field=option) from error.__cause__
    reader = row_reader(tokenizer, split, question, chat=chat)
    write_states(source, output, found, reader, replace=replace)
