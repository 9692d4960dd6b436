"""Tools that answer calls in the middle of a completion."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

from stepcredit.signals.responses import Response


class Environment(ABC):
    """The tools of a task: what they answer, and the state that an agent is in.

    A call ends with the token `call_end`. The tokens after it, up to and including `reply_end`, are
    the tool's: they are put into the completion, and no loss trains them. A turn is what the policy
    writes up to and including `call_end`, or the rest of its completion.

    Class attributes:
        call_end: the token that ends a call.
        reply_end: the token that ends a tool's answer, which holds it nowhere else.
    """

    call_end: ClassVar[str]
    reply_end: ClassVar[str]

    @abstractmethod
    def reply(self, prompt: str, completion: str) -> str:
        """What the tools answer to a completion that ends with `call_end`; ends with `reply_end`.

        Raises:
            StepCreditError: the prompt does not belong to the task.
        """

    @abstractmethod
    def state(self, completion: str) -> str:
        """The key of the state after the beginning of a completion; equal keys are one state."""

    def policy_tokens(self, tokens: Sequence[str]) -> list[bool]:
        """Which tokens of a completion the policy wrote; the tools wrote the others.

        Args:
            tokens: of the completion.
        """
        found, own = [], True
        for token in tokens:
            found.append(own)
            own = token != self.call_end if own else token == self.reply_end
        return found

    def states(self, response: Response) -> list[str]:
        """The state that each step of a response was taken in, for methods that compare states.

        Args:
            response: split into steps.
        """
        assert response.steps is not None
        starts = (start for start, _ in pairwise((0, *response.steps)))
        return [self.state(response.text[:start]) for start in starts]
