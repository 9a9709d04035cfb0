"""What a document is worth to the bandit: a sum of transformed columns, and what an arm is worth by its documents.

    reward_i = sum over terms of weight * transform(column_i)

A column is anything known of a document: measured influence, a predicted one, a scorer's score, a signal, a number that
a user's query gives. A transform is fitted once, to the pool or to the opening probes, and then applied to whatever
documents come: what one document is worth does not depend on those it is asked with. Transforms:

    identity          x
    zscore            (x - mean) / deviation; 0 where all are equal
    rank              share of the fitted values below x, equal ones by half: 0 to 1
    log1p             sign(x) log(1 + |x|)
    clip(a, b)        x brought between a and b
    tail(q)           1 where x is above the q-quantile of the fitted values, else 0: an arm's mean is its tail mass
    log_sigmoid(q)    log sigmoid((x - q-quantile) / deviation): a sum of such terms is high only where each is (Wang et
                      al., Transforming and Combining Rewards, ICML 2024)

Sign: positive = helpful; a column where less is better takes a negative weight. NaN (not measured) stays NaN.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from winnow.errors import UserError

CALL = re.compile(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*")
Fitted = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Term:
    """One summand: ``weight`` times ``transform`` (as ``"zscore"`` or ``"clip(-1, 1)"``) of ``column``.

    Raises :class:`UserError` for an unknown transform, wrong numbers in it, or a weight that is not finite.
    """

    column: str
    transform: str = "identity"
    weight: float = 1.0

    def __post_init__(self) -> None:
        parse_transform(self.transform)
        if not math.isfinite(self.weight):
            raise UserError(f"reward, column '{self.column}': weight {self.weight}; expected a finite number")


@dataclass(frozen=True, eq=False)
class Reward:
    """Terms with their fitted transforms; made by :func:`fit_reward`."""

    terms: tuple[Term, ...]
    transforms: tuple[Fitted, ...]

    def of(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the reward of N documents, float64 ``[N]``, from float ``[N]`` columns by name; NaN where one is."""
        parts = [
            term.weight * transform(_column(columns, term.column))
            for term, transform in zip(self.terms, self.transforms, strict=True)
        ]
        return np.asarray(np.sum(parts, axis=0))


def fit_reward(terms: Sequence[Term], columns: Mapping[str, np.ndarray]) -> Reward:
    """Fit the transforms to documents, the finite values of ``columns`` (float ``[N]`` by name).

    Raises :class:`UserError` without terms, or when a column is missing or has no finite value.
    """
    if not terms:
        raise UserError("reward: it has no terms; name at least one column")
    fitted = []
    for term in terms:
        values = _column(columns, term.column)
        values = np.sort(values[np.isfinite(values)])  # sorted: sums do not depend on the order of the documents
        if not len(values):
            raise UserError(f"reward, column '{term.column}': no document has a finite value; measure it first")
        name, numbers = parse_transform(term.transform)
        fitted.append(TRANSFORMS[name].fit(values, *numbers))
    return Reward(tuple(terms), tuple(fitted))


@dataclass(frozen=True, eq=False)
class ArmRewards:
    """``mean`` and ``variance`` float64 ``[K]`` over an arm's documents with a reward (NaN where there are too few) and
    ``count`` int64 ``[K]``, how many these are."""

    mean: np.ndarray
    variance: np.ndarray
    count: np.ndarray


def arm_rewards(values: np.ndarray, arm_of: np.ndarray, arms: int, quantile: float | None = None) -> ArmRewards:
    """Return the rewards of K arms from those of N documents (float ``[N]``; what is not finite is left out).

    ``arm_of`` int64 ``[N]``. By default an arm's reward is the mean; with ``quantile`` it is its tail mass, the share
    of its documents above that quantile of all. Raises :class:`UserError` for a quantile outside (0, 1).
    """
    known = np.isfinite(values)
    rewards, groups = np.asarray(values, dtype=np.float64)[known], arm_of[known]
    if quantile is not None:
        if not 0 < quantile < 1:
            raise UserError(f"reward, quantile: {quantile}; expected a number between 0 and 1")
        rewards = (rewards > np.quantile(rewards, quantile)).astype(np.float64) if len(rewards) else rewards
    order = np.lexsort((rewards, groups))  # an order that is not the caller's
    rewards, groups = rewards[order], groups[order]
    count = np.bincount(groups, minlength=arms)
    mean = np.bincount(groups, weights=rewards, minlength=arms) / np.where(count > 0, count, np.nan)
    squares = np.bincount(groups, weights=(rewards - mean[groups]) ** 2, minlength=arms)
    return ArmRewards(mean, squares / np.where(count > 1, count - 1, np.nan), count.astype(np.int64))


def parse_transform(text: str) -> tuple[str, tuple[float, ...]]:
    """Return name and numbers of a transform such as ``clip(-1, 1)``. Raises :class:`UserError` for any other."""
    found = CALL.fullmatch(text)
    name = found[1] if found else text
    if found is None or name not in TRANSFORMS:
        raise UserError(f"reward, transform '{text}': no such transform; choose one of {', '.join(TRANSFORMS)}")
    told, kind = (found[2] or "").strip(), TRANSFORMS[name]
    try:
        numbers = tuple(float(number) for number in told.split(",")) if told else ()
        right = len(numbers) == kind.numbers and kind.allowed(*numbers)
    except ValueError:
        right = False
    if not right:
        raise UserError(f"reward, transform '{text}': expected {kind.usage}")
    return name, numbers


@dataclass(frozen=True)
class _Kind:
    """A transform: how it is written, how many numbers it takes, which, and how it is fitted to sorted values."""

    usage: str
    numbers: int
    allowed: Callable[..., bool]
    fit: Callable[..., Fitted]


def _zscore(values: np.ndarray) -> Fitted:
    mean, deviation = _moments(values)
    return lambda x: (x - mean) / deviation


def _rank(values: np.ndarray) -> Fitted:
    def apply(x: np.ndarray) -> np.ndarray:
        both = np.searchsorted(values, x, side="left") + np.searchsorted(values, x, side="right")
        return np.where(np.isnan(x), np.nan, both / (2 * len(values)))

    return apply


def _tail(values: np.ndarray, q: float) -> Fitted:
    limit = float(np.quantile(values, q))
    return lambda x: np.where(np.isnan(x), np.nan, x > limit)


def _log_sigmoid(values: np.ndarray, q: float) -> Fitted:
    limit, deviation = float(np.quantile(values, q)), _moments(values)[1]

    def apply(x: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            return -np.logaddexp(0.0, -(x - limit) / deviation)

    return apply


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Return mean and deviation of sorted values; 1 for the latter where they differ by rounding only."""
    deviation = float(values.std())
    equal = values[0] == values[-1] or deviation <= 1e-12 * float(np.abs(values).max())
    return float(values[0] if equal else values.mean()), 1.0 if equal else deviation


TRANSFORMS = {
    "identity": _Kind("identity", 0, lambda: True, lambda values: lambda x: x),
    "zscore": _Kind("zscore", 0, lambda: True, _zscore),
    "rank": _Kind("rank", 0, lambda: True, _rank),
    "log1p": _Kind("log1p", 0, lambda: True, lambda values: lambda x: np.sign(x) * np.log1p(np.abs(x))),
    "clip": _Kind("clip(a, b), a <= b", 2, lambda a, b: a <= b, lambda values, a, b: lambda x: np.clip(x, a, b)),
    "tail": _Kind("tail(q), 0 < q < 1", 1, lambda q: 0 < q < 1, _tail),
    "log_sigmoid": _Kind("log_sigmoid(q), 0 < q < 1", 1, lambda q: 0 < q < 1, _log_sigmoid),
}


def _column(columns: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in columns:
        raise UserError(f"reward, column '{name}': no such column; there are {', '.join(sorted(columns)) or 'none'}")
    return np.asarray(columns[name], dtype=np.float64)
