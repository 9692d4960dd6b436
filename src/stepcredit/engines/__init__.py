"""One file a trainer: all knowledge of that trainer, and nothing else."""
