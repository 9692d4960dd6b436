"""Trackio's dashboard with our metrics in the order of the table.

Trackio draws a chart for each logged metric and groups them by the beginnings of their names. What
can be set is their order, by the environment variable `TRACKIO_PLOT_ORDER`.
"""

from __future__ import annotations

import os
from urllib.parse import urlencode

from stepcredit.credit.metrics.metric_table import PREFIX
from stepcredit.engines.dashboards.charts import plot_order
from stepcredit.requires import require

VARIABLE = "TRACKIO_PLOT_ORDER"
EXTRA = "trackio"


def order_setting() -> str:
    """The value of the variable, for a dashboard that is started in another way.

    Example:
        >>> order_setting().partition(",")[0]
        'train/stepcredit/raw_mean/*'
    """
    return ",".join(plot_order())


def start_dashboard(project: str | None) -> str:
    """Start Trackio's dashboard in this order, in a thread of this process.

    Args:
        project: the project whose runs are shown; None: all.

    Returns:
        The address of the dashboard with our metrics alone.

    Raises:
        MissingExtra: `trackio` is not installed.
    """
    require(EXTRA, "trackio")
    import trackio

    os.environ[VARIABLE] = order_setting()
    _, url, *_ = trackio.show(project=project, open_browser=False, block_thread=False)
    return ours_alone(url, project)


def ours_alone(url: str, project: str | None = None) -> str:
    """The address at which a dashboard shows our metrics alone.

    Example:
        >>> ours_alone("http://127.0.0.1:7860/", "sums")
        'http://127.0.0.1:7860/?project=sums&metric_filter=stepcredit%2F'
    """
    chosen = {} if project is None else {"project": project}
    chosen["metric_filter"] = PREFIX
    return f"{url.rstrip('/')}/?{urlencode(chosen)}"
