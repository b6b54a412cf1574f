"""f-DPO: other divergences than the reverse KL between policy and reference, for losses of the reward margin.

What DPO maximises is a reward less beta times a divergence D_f(pi || pi_ref), the mean under pi_ref of f(pi / pi_ref).
Its solution has the reward r(x, y) = beta * f'(pi(y|x) / pi_ref(y|x)) + a term of x alone (arXiv 2309.16240, Theorem
1), so that a loss of reward margins, such as `sigmoid`, has in place of h

    h_f = g(log pi(y_w|x) / pi_ref(y_w|x)) - g(log pi(y_l|x) / pi_ref(y_l|x)),    g(q) = f'(exp(q)),

with these g, each moved by a constant so that g(0) = 0 (Table 1 of that paper):

    reverse_kl: q    forward_kl: 1 - exp(-q)    js: ln 2 + log sigmoid(q)    alpha: (1 - exp(-a * q)) / a
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from tiltlm.objectives.logistic import log_sigmoid

if TYPE_CHECKING:
    from torch import Tensor

Divergence = Annotated[
    Literal["reverse_kl", "forward_kl", "js", "alpha"],
    Field(
        description="Measure of the distance from the reference (f-DPO): `reverse_kl` as in DPO, `forward_kl`, which "
        "keeps all that the reference does, or `js` and `alpha` between them."
    ),
]
DivergenceAlpha = Annotated[
    float,
    Field(gt=0, lt=1, description="With divergence `alpha`: towards 0 it is the reverse KL, towards 1 the forward."),
]
USUAL_ALPHA = 0.5

FAR = 20.0
"""From which exponent on, in nats, exp is continued by its tangent. An answer that became exp(20), half a billion,
times less likely has a gradient of as much. exp itself leaves float32 at 88 and float64 at 709, where two log-ratios
that are both far down differ by infinity less infinity; and to stop it there, as peers do, takes the gradient from the
very answers that fell. The tangent stays finite, and goes on rising."""


def require_read(divergence: str, alpha: float) -> None:
    """Refuses a divergence_alpha that nothing reads.

    Raises:
        ValueError: it is given, and the divergence is not `alpha`.
    """
    if divergence != "alpha" and alpha != USUAL_ALPHA:
        raise ValueError(
            f"divergence_alpha has no effect on the divergence `{divergence}`: remove it, or set loss.divergence to "
            "`alpha`."
        )


def reward_per_beta(log_ratios: Tensor, divergence: str, alpha: float) -> Tensor:
    """g of log-ratios in nats: the implicit reward over beta, element by element; 0 where both models agree."""
    if divergence == "forward_kl":
        return _one_less_exp(log_ratios)
    if divergence == "js":
        return math.log(2) + log_sigmoid(log_ratios)
    if divergence == "alpha":
        return _one_less_exp(alpha * log_ratios) / alpha
    return log_ratios


def _one_less_exp(q: Tensor) -> Tensor:
    """1 - exp(-q), and its tangent where q is below -FAR.

    One or the other, not the sum of a curve and a line that is flat elsewhere: the gradient would be a difference of
    two large numbers, and in float32 nothing but rounding.
    """
    near = -(-q.clamp(min=-FAR)).expm1()
    return near.where(q >= -FAR, (q + FAR) * math.exp(FAR) - math.expm1(FAR))
