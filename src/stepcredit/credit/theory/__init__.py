"""What can be proved about the methods, as functions of plain numbers.

`length_pressure` has the rule by which one more chunk changes the path score of PASS.
`min_form_errors` has the bias of PURE's softmin and the effect of score errors on each return.
"""

from stepcredit.credit.theory.length_pressure import (
    admission_threshold,
    best_padding,
    eq8_change,
    first_order_change,
    outcome_weight,
    path_score,
    path_score_limit,
    paying_padding,
    turning_point,
    worst_padding,
)
from stepcredit.credit.theory.min_form_errors import (
    ErrorBounds,
    error_bounds,
    softmin_bias,
    softmin_bias_bound,
    softmin_worst_scores,
    strict_min_exposed,
)

__all__ = [
    "ErrorBounds",
    "admission_threshold",
    "best_padding",
    "eq8_change",
    "error_bounds",
    "first_order_change",
    "outcome_weight",
    "path_score",
    "path_score_limit",
    "paying_padding",
    "softmin_bias",
    "softmin_bias_bound",
    "softmin_worst_scores",
    "strict_min_exposed",
    "turning_point",
    "worst_padding",
]
