"""What trainers and evaluations wrote, as rollouts: one file per format in `logs.formats`."""
