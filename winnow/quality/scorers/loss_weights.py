r"""Weights of a batch's samples by their own losses, renewed at every step: no score of documents, and no model but the
one in training.

    h_i = d (2 l_i - (max l + min l)) / (max l - min l)        in [-d, d]; 0 where all losses are equal
    w_i = exp(f(h_i) / r) / sum_j exp(f(h_j) / r)

``linear_upper``  f = min(h + d, d)      low losses (redundant samples) weigh less, all from the middle up alike
``upper``         f = (h + d) / 2        the higher the loss, the more
``quadratic``     f = 1 - h^2 / d^2      the middle most: neither redundant nor odd
``extremes``      f = |h|                the ends most

r (``temperature``, 0.4 in the released configurations) sets how far weights differ; large r = all alike. The first
steps (1,000 there) are not reweighted. The loss of a step is sum_i w_i l_i, the weights held constant.

Source: Sow et al. 2025, "Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining"
(arXiv 2502.06733), section 3; names after the paper, where the code says ``linupper`` and ``mid``.
"""

from __future__ import annotations

import numpy as np

from winnow.errors import UserError

STRATEGIES = ("linear_upper", "upper", "quadratic", "extremes")


def loss_weights(
    losses: np.ndarray, strategy: str = "linear_upper", temperature: float = 0.4, bound: float = 1.0
) -> np.ndarray:
    """Return the weights of a batch's B samples, float64 ``[B]``, at least 0, sum 1.

    ``losses`` ``[B]``: each sample's mean token loss; one that is not finite weighs 0. ``bound`` is d. Multiply by B to
    weigh samples around 1. Raises :class:`UserError` for an unknown strategy, or a temperature or bound not above 0.
    """
    if strategy not in STRATEGIES:
        raise UserError(f"loss weights: no strategy '{strategy}'; choose one of {', '.join(STRATEGIES)}")
    if not (temperature > 0.0 and bound > 0.0):
        raise UserError(f"loss weights: temperature {temperature} and bound {bound}; both must be above 0")
    losses = np.asarray(losses, dtype=np.float64)
    finite = np.isfinite(losses)
    weights = np.zeros(len(losses))
    if not finite.any():
        return weights
    known = losses[finite]
    low, high = known.min(), known.max()
    scaled = bound * (2.0 * known - (high + low)) / (high - low) if high > low else np.zeros(len(known))
    emphasis = {
        "linear_upper": np.minimum(scaled + bound, bound),
        "upper": (scaled + bound) / 2.0,
        "quadratic": 1.0 - (scaled / bound) ** 2,
        "extremes": np.abs(scaled),
    }[strategy]
    weights[finite] = np.exp((emphasis - emphasis.max()) / temperature)
    return weights / weights.sum()
