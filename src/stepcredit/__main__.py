"""`python -m stepcredit`."""

from stepcredit.settings.modules import leave_out_working_folder

if __name__ == "__main__":
    leave_out_working_folder()
    from stepcredit.cli import main

    main()
