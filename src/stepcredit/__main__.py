"""`python -m stepcredit`."""

from stepcredit.cli import main

if __name__ == "__main__":
    main()
