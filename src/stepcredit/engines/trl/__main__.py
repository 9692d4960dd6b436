"""`python -m stepcredit.engines.trl --config recipe.yaml`."""

import sys

from stepcredit.settings.modules import leave_out_working_folder

if __name__ == "__main__":
    leave_out_working_folder()
    from stepcredit.engines.trl.script import main

    sys.exit(main())
