"""What a worker process tells its parent, a letter an item."""

READY, RIGHT, WRONG, BAD_GOLD, TIMED_OUT = "+RWGT"
LETTERS = frozenset({RIGHT, WRONG, BAD_GOLD, TIMED_OUT})
"""What an item can be answered with."""
