"""Draws of the policies: each is a hash of (seed, stream, round, arm).

So a policy repeats its draws bit by bit, they do not depend on how many arms there are, and many runs drawn at once get
what each would get alone.
"""

from __future__ import annotations

import numpy as np


def uniforms(seeds: np.ndarray, stream: int, number: int, arms: int) -> np.ndarray:
    """Return one draw an arm, float64 ``[..., K]`` in (0, 1), for integer ``seeds`` ``[...]``.

    ``number`` is the round, ``stream`` tells apart several draws of one round. The hash is SplitMix64 (Steele, Lea and
    Flood, OOPSLA 2014), once for each of the four numbers.
    """
    state = _mix(np.asarray(seeds).astype(np.uint64))
    state = _mix(state ^ np.uint64(stream))
    state = _mix(state ^ np.uint64(number))
    bits = _mix(state[..., None] ^ np.arange(arms, dtype=np.uint64))
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normals(seeds: np.ndarray, stream: int, number: int, arms: int) -> np.ndarray:
    """Return standard normal draws, float64 ``[..., K]``, by Box and Muller."""
    radius, angle = _polar(seeds, stream, number, arms)
    return np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)


def students(seeds: np.ndarray, stream: int, number: int, degrees: np.ndarray) -> np.ndarray:
    """Return draws of Student's t with ``degrees`` float64 ``[..., K]`` of freedom (above 0).

    Bailey's polar method (Mathematics of Computation 62, 1994): sqrt(v (U^(-2/v) - 1)) cos(2 pi V).
    """
    radius, angle = _polar(seeds, stream, number, degrees.shape[-1])
    return np.sqrt(degrees * np.expm1(-2 / degrees * np.log(radius))) * np.cos(2 * np.pi * angle)


def _polar(seeds: np.ndarray, stream: int, number: int, arms: int) -> tuple[np.ndarray, np.ndarray]:
    return uniforms(seeds, 2 * stream, number, arms), uniforms(seeds, 2 * stream + 1, number, arms)


def _mix(state: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        state = np.asarray(state, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
