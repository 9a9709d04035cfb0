"""Which arms a token budget takes when it is filled from the best arm down, and where it ends."""

from __future__ import annotations

import numpy as np


def filled(values: np.ndarray, tokens: np.ndarray, budget: int | np.ndarray) -> np.ndarray:
    """Return the tokens that each arm gets, int64 ``[..., K]``, filling ``budget`` ``[...]`` by falling value.

    Ties go to the smaller arm; a value that is not finite comes last. The sum is the budget, or all tokens.
    """
    order = np.argsort(-np.where(np.isfinite(values), values, -np.inf), axis=-1, kind="stable")
    sorted_tokens = np.take_along_axis(tokens, order, axis=-1)
    before = np.cumsum(sorted_tokens, axis=-1) - sorted_tokens
    given = np.clip(np.asarray(budget)[..., None] - before, 0, sorted_tokens)
    result = np.empty_like(given)
    np.put_along_axis(result, order, given, axis=-1)
    return result


def cut(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return for each arm the value that it has to stay above (or to rise above) to be taken, float64 ``[..., K]``.

    ``given`` is what :func:`filled` gave for ``values``. An arm that got tokens compares with the best that got none,
    the others with the worst that got some; where there is none of the kind, with infinity of that side.
    """
    inside = given > 0
    outside_best = np.where(inside, -np.inf, values).max(axis=-1, keepdims=True, initial=-np.inf)
    inside_worst = np.where(inside, values, np.inf).min(axis=-1, keepdims=True, initial=np.inf)
    return np.where(inside, outside_best, inside_worst)


def unit_loss(z: np.ndarray) -> np.ndarray:
    """Return E max(Z - z, 0) for standard normal Z and z >= 0: phi(z) - z (1 - Phi(z)); below 1e-17 it is 0."""
    from scipy.special import ndtr

    result = np.zeros(np.shape(z))
    near = z < 8
    inside = z[near]  # most arms are far from the cut
    result[near] = np.exp(-(inside**2) / 2) / np.sqrt(2 * np.pi) - inside * ndtr(-inside)
    return result
