"""`stepcredit panels`: ready-made dashboards of the metrics that our engines log."""

from __future__ import annotations

import sys
from threading import Event
from typing import Annotated

import typer

from stepcredit.cli.output import CommandApp
from stepcredit.errors import SettingError

app = CommandApp(
    no_args_is_help=True,
    help="Ready-made dashboards of a run's metrics: a W&B view, or Trackio in order.",
)
Printed = Annotated[
    bool,
    typer.Option("--print", help="Print the definition; nothing is sent and nothing started."),
]


@app.command("list")
def list_command() -> None:
    """Print the charts by section: their metrics, what these mean, what to do when they drift."""
    from stepcredit.engines.dashboards.charts import charts

    for section, own in charts().items():
        typer.echo(f"{section}\n")
        for chart in own:
            typer.echo(f"  {chart.title}")
            for line in chart.about.splitlines():
                typer.echo(f"    {line}")
        typer.echo("")


@app.command("wandb")
def wandb_command(
    project: Annotated[str, typer.Option("--project", help="The project of the runs.")] = "",
    entity: Annotated[str, typer.Option("--entity", help="The user or team that owns it.")] = "",
    name: Annotated[str, typer.Option("--name", help="Name of the new view.")] = "stepcredit",
    printed: Printed = False,
) -> None:
    """Make a view in W&B with one section per group of metrics, for runs of TRL and verl.

    It needs the extra `wandb`, and a login (`wandb login`) unless --print is given.
    """
    from stepcredit.engines.dashboards import wandb_workspace

    if not printed:
        for option, value in (("--project", project), ("--entity", entity)):
            if not value:
                raise SettingError("W&B needs it, except with --print", field=option)
    workspace = wandb_workspace.build_workspace(project, entity, name)
    if printed:
        typer.echo(wandb_workspace.workspace_definition(workspace))
    else:
        typer.echo(wandb_workspace.save_workspace(workspace))


@app.command("trackio")
def trackio_command(
    project: Annotated[
        str | None, typer.Option("--project", help="The project whose runs are shown.")
    ] = None,
    printed: Printed = False,
) -> None:
    """Start Trackio's dashboard with our metrics in the order of the table, until Ctrl-C.

    It needs the extra `trackio`. With --print, it prints the line to set for a dashboard that is
    started in another way, such as a Space.
    """
    from stepcredit.engines.dashboards import trackio_dashboard

    if printed:
        order = trackio_dashboard.order_setting()
        typer.echo(f"{trackio_dashboard.VARIABLE}='{order}'")
    else:
        typer.echo(f"our metrics alone: {trackio_dashboard.start_dashboard(project)}")
        sys.stdout.flush()
        Event().wait()  # the dashboard runs in a thread of this process
