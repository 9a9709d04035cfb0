"""Documents into a budget, one after another (numba); imported only when a selection is made."""

from __future__ import annotations

import numpy as np

from winnow.compiled import kernel


@kernel
def take(order: np.ndarray, costs: np.ndarray, group_of: np.ndarray, left: np.ndarray, taken: np.ndarray) -> None:
    """Take each document of ``order`` that is not taken and fits what its group has left."""
    for place in range(len(order)):
        document = order[place]
        if not taken[document] and costs[document] <= left[group_of[document]]:
            left[group_of[document]] -= costs[document]
            taken[document] = True


@kernel
def take_within_two(
    order: np.ndarray,
    costs: np.ndarray,
    group_of: np.ndarray,
    left: np.ndarray,
    other_of: np.ndarray,
    other_left: np.ndarray,
    taken: np.ndarray,
) -> None:
    """As :func:`take`, with a second grouping that has to have room too."""
    for place in range(len(order)):
        document = order[place]
        cost, group, other = costs[document], group_of[document], other_of[document]
        if not taken[document] and cost <= left[group] and cost <= other_left[other]:
            left[group] -= cost
            other_left[other] -= cost
            taken[document] = True
