"""One module per format: how a row of it becomes responses."""
