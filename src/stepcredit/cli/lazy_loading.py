"""Commands whose modules are imported when they run, so that the list of commands opens fast."""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand

from stepcredit.cli.output import CommandApp


class LazyCommand(TyperCommand):
    """A command of which only the name and the help are loaded until it runs.

    `lazy_command` makes a subclass of it for each command.
    """

    target: ClassVar[str]

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Load the real command, and let it parse the arguments."""
        return loaded_command(self.name or "", self.target).make_context(*args, **kwargs)


def lazy_command(app: typer.Typer, name: str, target: str, about: str, panel: str) -> None:
    """Add a command to an app without importing its module.

    Args:
        app: the app.
        name: the command's name.
        target: MODULE:NAME of its function, or of an app with subcommands.
        about: its line in the list of commands; the first line of the function's docstring.
        panel: the heading in that list.
    """
    kind = type("LazyCommand", (LazyCommand,), {"target": target})
    app.command(name, cls=kind, help=about, rich_help_panel=panel)(lambda: None)


def loaded_command(name: str, target: str) -> Any:
    """The real command, whose errors are printed in one line on stderr.

    Args:
        name: the command's name.
        target: MODULE:NAME of its function, or of an app with subcommands.
    """
    module, _, attribute = target.partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    app = CommandApp()
    app.command(name)(found)
    return typer.main.get_command(app)
