"""`python -m stepcredit.engines.verl --check`: the preflight of a verl config.

It takes the arguments of `python -m verl.trainer.main_ppo`, and trains nothing.
"""

from __future__ import annotations

import sys

from stepcredit.engines.verl.check_command import check_from_flags

if __name__ == "__main__":
    sys.exit(check_from_flags())
