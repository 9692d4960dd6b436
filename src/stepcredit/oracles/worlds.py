"""The six worlds of the oracle table, each small enough to enumerate."""

from __future__ import annotations

from stepcredit.oracles.decision_process import Move, World

DELAYED = World(
    "delayed",
    "The first step decides; the steps after it have no effect, and the outcome comes at the end.",
    {
        "start": (Move(0.5, "right"), Move(0.5, "wrong")),
        "right": (Move(0.6, "right, said"), Move(0.4, "right, said")),
        "wrong": (Move(0.6, "wrong, said"), Move(0.4, "wrong, said")),
        "right, said": (Move(0.7, 1.0), Move(0.3, "right, padded", "filler")),
        "wrong, said": (Move(0.7, 0.0), Move(0.3, "wrong, padded", "filler")),
        "right, padded": (Move(1.0, 1.0),),
        "wrong, padded": (Move(1.0, 0.0),),
    },
)

FILLER = World(
    "filler",
    "Two steps must be right; up to two fillers between them change nothing.",
    {
        "start": (Move(0.6, "right"), Move(0.4, "wrong")),
        "right": (Move(0.5, 1.0), Move(0.2, 0.0), Move(0.3, "right, 1", "filler")),
        "right, 1": (Move(0.5, 1.0), Move(0.2, 0.0), Move(0.3, "right, 2", "filler")),
        "right, 2": (Move(0.5, 1.0), Move(0.2, 0.0)),
        "wrong": (Move(0.5, 0.0), Move(0.2, 0.0), Move(0.3, "wrong, 1", "filler")),
        "wrong, 1": (Move(0.5, 0.0), Move(0.2, 0.0), Move(0.3, "wrong, 2", "filler")),
        "wrong, 2": (Move(0.5, 0.0), Move(0.2, 0.0)),
    },
)

RECOVERY = World(
    "recovery",
    "After a wrong step, a repair leads back to where a right step leads at once.",
    {
        "start": (Move(0.6, "good"), Move(0.4, "bad")),
        "bad": (Move(0.3, "good"), Move(0.7, "lost")),
        "good": (Move(0.7, 1.0), Move(0.1, 0.0), Move(0.2, "good, padded", "filler")),
        "good, padded": (Move(0.7, 1.0), Move(0.1, 0.0)),
        "lost": (Move(0.1, 1.0), Move(0.7, 0.0), Move(0.2, "lost, padded", "filler")),
        "lost, padded": (Move(0.1, 1.0), Move(0.7, 0.0)),
    },
)

HORIZON = World(
    "horizon",
    "A short way succeeds less often than a long one, whose steps can all go wrong.",
    {
        "start": (Move(0.5, "short"), Move(0.5, "long")),
        "short": (Move(0.4, 1.0), Move(0.6, 0.0)),
        "long": (Move(0.7, "long, right"), Move(0.3, "long, wrong")),
        "long, right": (Move(0.6, 1.0), Move(0.2, 0.0), Move(0.2, "long, padded", "filler")),
        "long, padded": (Move(0.6, 1.0), Move(0.2, 0.0)),
        "long, wrong": (Move(0.8, 0.0), Move(0.2, "wrong, padded", "filler")),
        "wrong, padded": (Move(1.0, 0.0),),
    },
)

PREFIXES = World(
    "prefixes",
    "A tree of decisions in which responses share their first steps.",
    {
        "start": (Move(0.6, "a"), Move(0.4, "b")),
        "a": (Move(0.4, "aa"), Move(0.4, "ab"), Move(0.2, "a, padded", "filler")),
        "a, padded": (Move(0.4, "aa"), Move(0.4, "ab")),
        "b": (Move(0.5, "ba"), Move(0.5, "bb")),
        "aa": (Move(0.5, 1.0), Move(0.5, 1.0)),
        "ab": (Move(0.6, 1.0), Move(0.4, 0.0)),
        "ba": (Move(0.3, 1.0), Move(0.7, 0.0)),
        "bb": (Move(0.5, 0.0), Move(0.5, 0.0)),
    },
)

STOPPING = World(
    "stopping",
    "A response that stops early has made no wrong step, and fails.",
    {
        "start": (Move(0.7, "right"), Move(0.3, "wrong")),
        "right": (
            Move(0.4, "right, right"),
            Move(0.2, "right, wrong"),
            Move(0.2, 0.0, "stop"),
            Move(0.2, "right, padded", "filler"),
        ),
        "right, padded": (
            Move(0.4, "right, right"),
            Move(0.2, "right, wrong"),
            Move(0.2, 0.0, "stop"),
        ),
        "right, right": (Move(0.7, 1.0), Move(0.3, 0.0)),
        "right, wrong": (Move(1.0, 0.0),),
        "wrong": (Move(0.8, 0.0), Move(0.2, 0.0, "stop")),
    },
)

REPAIR = World(
    "repair",
    "A wrong step, and the step that repairs it, in their simplest form.",
    {
        "start": (Move(1.0, 1.0), Move(1.0, "wrong")),
        "wrong": (Move(1.0, 1.0), Move(1.0, 0.0)),
    },
)
"""V is 3/4 at the start and 1/2 after a wrong step, so a wrong step has the advantage -1/4 and its
repair +1/2. It is not in the table: its claim is about single responses."""

WORLDS = {world.name: world for world in (DELAYED, FILLER, RECOVERY, HORIZON, PREFIXES, STOPPING)}
"""The worlds of the table, by name."""
