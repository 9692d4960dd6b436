"""`python -m stepcredit.launch --config recipe.yaml`."""

import sys

from stepcredit.launch.script import train_from_flags

if __name__ == "__main__":
    sys.exit(train_from_flags())
