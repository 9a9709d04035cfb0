"""What was observed of every arm, as sums: pulls, probes, rewards and squared rewards."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from winnow.selection.facts import Prior


@dataclass(eq=False)
class Tally:
    """Sums over the pulls of each arm, float64 ``[K]`` (``[R, K]`` for R runs at once).

    ``pulls`` T; ``probes``, the finite rewards seen; ``total`` and ``squares``, their sum and the sum of their squares.
    Fractions come from discounting, from neighbours and from priors. What a prior says of the variances stands apart:
    ``earlier_scatter`` and ``earlier_freedom``.
    """

    pulls: np.ndarray
    probes: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    earlier_scatter: np.ndarray
    earlier_freedom: np.ndarray

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Tally:
        return cls(*(np.zeros(shape, dtype=np.float64) for _ in range(6)))

    @classmethod
    def of_prior(cls, shape: tuple[int, ...], prior: Prior | None) -> Tally:
        """Return a tally in which a prior worth n probes stands as n probes of its mean, in one pull."""
        tally = cls.empty(shape)
        if prior is not None:
            known = prior.count > 0
            count = np.where(known, prior.count, 0.0)
            alone = np.maximum(count - 1, 0.0)
            freedom = alone if prior.freedom is None else np.where(known, prior.freedom, 0.0)
            mean = np.where(known, prior.mean, 0.0)
            tally.pulls += known
            tally.probes += count
            tally.total += count * mean
            tally.squares += count * mean**2
            tally.earlier_scatter += freedom * np.where(known, prior.variance, 0.0)
            tally.earlier_freedom += freedom - alone
        return tally

    def add(self, places: np.ndarray, *sums: np.ndarray) -> None:
        """Add pulls, probes, total and squares, each float64 ``[M]``, to the arms at ``places`` int64 ``[M]``.

        A place is the index of an arm in the flattened shape; one may occur more than once.
        """
        for table, values in zip(self._tables(), sums, strict=True):
            np.add.at(table.reshape(-1), places, values)

    def scale(self, factor: float) -> None:
        """Multiply every sum: discounting."""
        for table in self._tables():
            table *= factor

    def plus(self, other: Tally) -> Tally:
        """Return the sums of both."""
        return Tally(*(mine + its for mine, its in zip(self._all(), other._all(), strict=True)))

    def mean(self) -> np.ndarray:
        """Return the mean reward of each arm; NaN where none was seen."""
        return np.divide(self.total, self.probes, out=np.full(self.probes.shape, np.nan), where=self.probes > 0)

    def scatter(self) -> np.ndarray:
        """Return the sum of squared deviations from the arm's mean, at least 0; 0 where nothing was seen."""
        mean = np.where(self.probes > 0, self.total / np.where(self.probes > 0, self.probes, 1.0), 0.0)
        return np.maximum(self.squares - mean * self.total, 0.0) + self.earlier_scatter

    def freedom(self) -> np.ndarray:
        """Return the degrees of freedom of the scatter: the probes but one, and what a prior adds."""
        return np.maximum(self.probes - 1, 0.0) + self.earlier_freedom

    def variance(self) -> np.ndarray:
        """Return the unbiased variance of one reward of each arm; NaN below two probes."""
        freedom = self.freedom()
        return np.divide(self.scatter(), freedom, out=np.full(freedom.shape, np.nan), where=freedom > 0)

    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.pulls, self.probes, self.total, self.squares

    def _all(self) -> tuple[np.ndarray, ...]:
        return *self._tables(), self.earlier_scatter, self.earlier_freedom
