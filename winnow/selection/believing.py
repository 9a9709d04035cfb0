"""What policies with a belief about the arms have in common."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from winnow.selection.belief import Belief, believe, standardise
from winnow.selection.options import Value
from winnow.selection.policies import ArmFacts, Policy

DIRECTIONS = 16  # at most so many of the centroids take part


class BelievingPolicy(Policy):
    """A policy whose mean is that of :func:`winnow.selection.belief.believe`, worked out once after every change."""

    def __init__(self, facts: ArmFacts, options: Mapping[str, Value] | None = None, seed: int | np.ndarray = 0) -> None:
        super().__init__(facts, options, seed)
        self.features = standardise(facts.centroids, facts.features, most=DIRECTIONS) if self.uses_features else None
        self._belief: Belief | None = None

    @property
    def uses_features(self) -> bool:
        """Whether centroids and features, if the arms have any, take part in the belief."""
        return bool(self.options.features)

    def add(
        self, places: np.ndarray, pulls: np.ndarray, probes: np.ndarray, total: np.ndarray, squares: np.ndarray
    ) -> None:
        super().add(places, pulls, probes, total, squares)
        self._belief = None

    def forget(self, keep: float) -> None:
        """Let all that was seen count ``keep`` of what it did."""
        if keep < 1:
            self.tally.scale(keep)
            self._belief = None

    @property
    def belief(self) -> Belief:
        """What is believed of every arm's mean."""
        if self._belief is None:
            self._belief = self._believe()
        return self._belief

    def mean(self) -> np.ndarray:
        return self.belief.mean

    def _believe(self) -> Belief:
        return believe(self.tally, self.features)
