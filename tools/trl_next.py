"""Which of TRL's methods that we override or call still exist, in the TRL that is installed.

`make test-trl-next` installs the newest TRL beside the tested versions of everything else, runs
this, and then the tests of the engine.
"""

from __future__ import annotations

import inspect
import sys
import warnings

import trl
from trl import GRPOTrainer

from stepcredit.engines.trl import StepCreditGRPOTrainer
from stepcredit.engines.trl.start_checks import HOOKS, TESTED


def verdict(hook: str) -> str | None:
    """What has changed of one method; None where it holds."""
    theirs = getattr(GRPOTrainer, hook, None)
    if not callable(theirs):
        return "is gone"
    ours = vars(StepCreditGRPOTrainer).get(hook)
    if ours is None:
        return None
    here, there = (list(inspect.signature(method).parameters) for method in (ours, theirs))
    return None if here == there else f"takes ({', '.join(there)}), ours ({', '.join(here)})"


def main() -> None:
    """Print a line per hook; exit code 1 where one has changed."""
    warnings.simplefilter("ignore")
    print(f"trl {trl.__version__}; tested: >={TESTED[0]},<{TESTED[1]}")
    found = {hook: verdict(hook) for hook in HOOKS}
    for hook, changed in found.items():
        print(f"{hook}: {changed or 'holds'}")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
