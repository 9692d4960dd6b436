"""Ready-made dashboards of the metrics that our engines log: for W&B and for Trackio."""
