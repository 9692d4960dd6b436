"""Rollout files: JSON lines, gzip and Parquet, read in whole groups and written atomically."""

from stepcredit.data.files.reading import read_rollouts, read_rows
from stepcredit.data.files.rollout_file import RolloutFile
from stepcredit.data.files.writing import write_rollouts

__all__ = ["RolloutFile", "read_rollouts", "read_rows", "write_rollouts"]
