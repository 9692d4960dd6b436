"""`python -m stepcredit.engines.trl --config recipe.yaml`."""

import sys

from stepcredit.launch.script import main

if __name__ == "__main__":
    sys.exit(main())
