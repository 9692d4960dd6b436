"""Names that still work and will go, each with the version in which it goes.

A test fails if a release of that version, or of a later one, still has the name. The table in
docs/versions.md is made from this list.
"""

from __future__ import annotations

from dataclasses import dataclass

NEXT_MINOR = "0.2.0"


@dataclass(frozen=True)
class Deprecation:
    """A name that is replaced by another.

    Args:
        old, new: for readers, in Markdown.
        place: what has to be removed, MODULE or MODULE:NAME; a class's attribute as CLASS.NAME.
        since: the first release in which the old name warns.
        gone: the first release without it.
    """

    old: str
    new: str
    place: str
    since: str = "0.1.0"
    gone: str = NEXT_MINOR


DEPRECATIONS = (
    Deprecation(
        "paths and names of modules, classes and functions that were changed before "
        "0.1.0, such as `stepcredit.credit.streams` and `signals.prm.LocalPRM`",
        "the warning names the new path; the changelog has a table",
        "stepcredit._moved",
    ),
    Deprecation(
        "the settings `estimator` and `estimator_fields` of TRL's config and of recipes, and the "
        "trainer's keyword `estimator`",
        "`method`, `fields`",
        "stepcredit.engines.trl.config:StepCreditConfig.estimator_fields",
    ),
    Deprecation(
        "`told=` of `score_file` and `reward_file`; of `train_prm`",
        "`progress=`; `extra=`",
        "stepcredit._moved:reads_old_keyword",
    ),
    Deprecation(
        "calling the modules `credit.estimator`, `credit.methods`, `signals.signal` as functions",
        "`sc.estimator`, `sc.methods`, `sc.signal`",
        "stepcredit._moved:also_callable",
    ),
    Deprecation(
        "`python -m stepcredit.engines.trl`",
        "`python -m stepcredit.launch`",
        "stepcredit.engines.trl.__main__",
    ),
    Deprecation(
        "`engines.trl.CreditedBatch`, and `sampled` of a generation",
        "`engines.trl.Generation`; the generation itself",
        "stepcredit.engines.trl.generation:Generation.sampled",
    ),
)
