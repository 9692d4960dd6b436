"""Why PURE pays for length: a baseline that is taken from each token, or from each step."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stepcredit.audit.one_more_step import StepLevels, step_pressure
from stepcredit.credit.estimator import Estimator
from stepcredit.credit.methods.pure import PURE
from stepcredit.data.rollouts import Rollouts

UNITS = {"per_token": "token", "per_step": "step"}


@dataclass(frozen=True)
class PureBaseline:
    """What one more typical step changes if PURE's baseline is taken once per response.

    Args:
        unit: what the method takes its baseline from: "token" or "step".
        change: the mean change, in standard deviations of the responses' advantages.
    """

    unit: str
    change: float

    @classmethod
    def of(cls, method: Estimator, rollouts: Rollouts, levels: StepLevels) -> PureBaseline | None:
        """The measured change; None of another method, or of PURE with another baseline.

        Args:
            method: the method.
            rollouts: whole groups.
            levels: the scores of one more step.

        Example: minima far below 0 pay each further token, and only through the baseline.
            >>> import stepcredit as sc
            >>> steps = sc.Steps([[0, 1], [0, 1, 2]], [[-8.0, -3.0], [-9.0, -3.0, -3.0]])
            >>> rollouts = sc.Rollouts([0, 0], process=steps)
            >>> levels = StepLevels.of(rollouts)
            >>> abs(round(PureBaseline.of(sc.PURE(), rollouts, levels).change, 6))
            0.0
            >>> PureBaseline.of(sc.PASS(), rollouts, levels) is None
            True
        """
        if not isinstance(method, PURE) or method.form != "softmin" or method.baseline not in UNITS:
            return None
        once = step_pressure(replace(method, baseline="rollout"), rollouts, levels)
        mean = float(once.changes["typical"].mean())
        return cls(UNITS[method.baseline], mean / once.spread if once.spread > 0 else 0.0)

    @property
    def sentence(self) -> str:
        """What the baseline does, and what the step would change without it."""
        text = f"Its baseline takes the others' minimum per {self.unit} from every {self.unit}, so "
        text += "that length counts where minima are not near 0; taken once per response, one more"
        return f"{text} such step would change it by {self.change:+.2f} standard deviations."
