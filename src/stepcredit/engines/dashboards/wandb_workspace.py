"""A W&B workspace with the charts of our metrics, by the package `wandb-workspaces`."""

from __future__ import annotations

import json
from typing import Any

from stepcredit.engines.dashboards.charts import charts
from stepcredit.errors import EngineError, first_line
from stepcredit.requires import require

NAME = "stepcredit"
EXTRA = "wandb"


def build_workspace(project: str, entity: str, name: str = NAME) -> Any:
    """The workspace, which is not sent to W&B yet.

    Args:
        project, entity: whose it will be.
        name: what the list of views calls it.

    Returns:
        A `wandb_workspaces.workspaces.Workspace`: one section per group of metrics.

    Raises:
        MissingExtra: `wandb-workspaces` is not installed.
    """
    require(EXTRA, "wandb_workspaces")
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces

    sections = [
        workspaces.Section(
            name=title,
            is_open=True,
            panels=[
                reports.LinePlot(title=chart.title, metric_regex=chart.pattern) for chart in own
            ],
        )
        for title, own in charts().items()
    ]
    return workspaces.Workspace(entity=entity, project=project, name=name, sections=sections)


def workspace_definition(workspace: Any) -> str:
    """What W&B would be sent, as JSON; it needs neither a network nor a login.

    Args:
        workspace: of `build_workspace`.
    """
    model = workspace._to_model()
    return json.dumps(json.loads(model.model_dump_json(by_alias=True, exclude_none=True)), indent=1)


def save_workspace(workspace: Any) -> str:
    """Send the workspace to W&B; the address of the new view.

    Args:
        workspace: of `build_workspace`.

    Raises:
        EngineError: there is no login, no such project or no connection.
    """
    try:
        return str(workspace.save().url)
    except Exception as error:  # wandb's own errors are of many kinds
        reason = f"{first_line(error)}; --print writes the definition without W&B"
        raise EngineError(reason, field="wandb") from error
