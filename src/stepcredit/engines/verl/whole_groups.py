"""Groups must be whole when their credit is computed: all responses to a prompt in one batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stepcredit.engines.verl.batch import QueuedBatch, session_of
from stepcredit.engines.verl.config_keys import value_at
from stepcredit.errors import EngineError

SAMPLER = "trainer.v1.sampler.custom_sampler"


def has_own_sampler(config: Any) -> bool:
    """Whether verl's batches are sampled by a class of the user's.

    Args:
        config: verl's.

    Example:
        >>> own = {"path": "mine.py", "name": "Mine"}
        >>> has_own_sampler({"trainer": {"v1": {"sampler": {"custom_sampler": own}}}})
        True
    """
    return bool(value_at(config, f"{SAMPLER}.path") and value_at(config, f"{SAMPLER}.name"))


@dataclass
class WholeGroups:
    """Checks batch by batch that groups are whole, and keeps the prompts credited so far.

    verl's own replay buffers give the responses to a prompt together. Where sessions fail, the
    synchronous one keeps the others. A sampler of the user's may cut groups.

    Args:
        sessions: per prompt, `actor_rollout_ref.rollout.n`.
        is_custom: whether the sampler is the user's.
    """

    sessions: int
    is_custom: bool = False
    _seen: set[str] = field(default_factory=set)

    def check(self, batch: QueuedBatch) -> dict[str, str]:
        """Refuse prompts that come in several batches, and groups that a user's sampler cut.

        Args:
            batch: the next one.

        Returns:
            Warnings by kind: of a group that has lost sessions under verl's own sampler.

        Raises:
            EngineError: it names the prompt, and how many of its sessions are there.
        """
        found = _sessions_by_prompt(batch)
        for prompt in sorted(found.keys() & self._seen):
            reason = f"the responses to prompt {prompt} come in several batches, so its group is"
            reason += " not whole when credit is computed"
            raise EngineError(reason, field=SAMPLER)
        self._seen |= found.keys()
        for prompt in sorted(found):
            if len(found[prompt]) < self.sessions:
                return self._of_missing(prompt, len(found[prompt]))
        return {}

    def _of_missing(self, prompt: str, there: int) -> dict[str, str]:
        """The warning of a group with too few sessions; an error under a user's sampler."""
        line = f"prompt {prompt} has {there} of {self.sessions} sessions"
        line += " (actor_rollout_ref.rollout.n)"
        if self.is_custom:
            reason = f"{line} in its batch, so its group is not whole when credit is computed"
            raise EngineError(reason, field=SAMPLER)
        line += ": the others failed or gave nothing, and its credit compares the rest alone"
        return {"missing sessions": line}


def _sessions_by_prompt(batch: QueuedBatch) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    rows = zip(batch.keys, batch.columns["uid"], batch.padding, strict=True)
    for key, uid, is_padding in rows:
        if not is_padding:
            found.setdefault(str(uid), set()).add(session_of(key)[0])
    return found
