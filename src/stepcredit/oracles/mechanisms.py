"""The table of mechanism claims, each decided by an exact figure and by no training run."""

from __future__ import annotations

from collections.abc import Iterable

from stepcredit.oracles.claim import Claim
from stepcredit.oracles.contestants import OracleRow
from stepcredit.oracles.gradient_claims import GRADIENT_CLAIMS, TableFigures
from stepcredit.oracles.identity_claims import IDENTITY_CLAIMS
from stepcredit.oracles.state_claims import STATE_CLAIMS


def decided_claims(rows: Iterable[OracleRow]) -> list[Claim]:
    """Every claim, decided again.

    Args:
        rows: of the whole oracle table, `oracle_table()`.
    """
    figures = TableFigures(rows)
    claims = [decide() for decide in IDENTITY_CLAIMS]
    claims += [decide() for decide in STATE_CLAIMS]
    return claims + [decide(figures) for decide in GRADIENT_CLAIMS]
