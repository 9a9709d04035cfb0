"""Selection policies, one a file; the file's name is the policy's name, and adding the file registers it.

A policy file defines ``POLICY``, a subclass of :class:`Policy`. Arms are the last axis of every array: formulas that
keep to it serve one run (``[K]``) and, in the simulator, R runs at once (``[R, K]``).
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from winnow.errors import UserError
from winnow.selection.belief import noise_of
from winnow.selection.facts import ArmFacts, Prior
from winnow.selection.neighbours import Neighbours
from winnow.selection.options import NoOptions, Value, option, read_options
from winnow.selection.tally import Tally

__all__ = [
    "ArmFacts",
    "Policy",
    "Prior",
    "Round",
    "best_first",
    "option",
    "policy_class",
    "policy_names",
    "takes_option",
]


@dataclass(frozen=True, eq=False)
class Round:
    """What a policy may choose from: ``open_arms`` bool ``[K]``, and at most ``count`` of them.

    ``number`` is the round, 1 the first after the opening; ``probes_left`` and ``tokens_left`` are what the run may
    still measure and grant; ``left`` int64 ``[K]`` are the tokens that each arm still has. For R runs at once the
    arrays are ``[R, K]`` and the others but ``number`` are ``[R]``.
    """

    number: int
    open_arms: np.ndarray
    count: int | np.ndarray
    probes_left: int | np.ndarray
    tokens_left: int | np.ndarray
    left: np.ndarray


class Policy(ABC):
    """Which arms to pull next, from the rewards seen so far; positive = helpful.

    Rewards arrive standardised (z-scores by the opening round) unless ``standardised`` is false, then raw. Arms are
    indices ``0 .. K-1``. What was observed is kept in ``tally``, so most policies are a ``bonus`` alone.
    """

    Options: ClassVar[type] = NoOptions
    # False: the policy never asks for a reward, see shares().
    probing: ClassVar[bool] = True
    # How tokens are granted unless the settings say otherwise: "blocks" with the pulls, or "final", after all of them.
    grants: ClassVar[str] = "blocks"

    def __init__(self, facts: ArmFacts, options: Mapping[str, Value] | None = None, seed: int | np.ndarray = 0) -> None:
        """``seed`` is int64 ``[R]`` for R runs at once. Raises :class:`UserError` on an option out of range."""
        name = type(self).__module__.rpartition(".")[2]
        self.facts = facts
        self.options: Any = read_options(f"selection policy '{name}'", self.Options, options or {})
        self.seeds = np.asarray(seed, dtype=np.int64)
        self.shape = facts.sizes.shape
        self.tally = Tally.of_prior(self.shape, facts.prior)
        self.number = 0
        self.neighbours: Neighbours | None = None

    @property
    def standardised(self) -> bool:
        """Whether rewards come as z-scores of the opening."""
        return True

    def share(self, radius: float, counts: str = "weighted") -> None:
        """Let every pull count for the arms within ``radius`` too (:mod:`winnow.selection.neighbours`)."""
        self.neighbours = Neighbours(self.facts.centroids, radius, counts)

    def observe(self, arm: int, rewards: np.ndarray) -> None:
        """Take in one pull: its finite rewards, float64 ``[P]``; empty = a pull that reused the arm's mean."""
        self.observe_pulls(np.array([arm]), np.asarray(rewards, dtype=np.float64)[None])

    def observe_pulls(self, places: np.ndarray, rewards: np.ndarray) -> None:
        """Take in M pulls: ``rewards`` float64 ``[M, P]``, NaN where a pull has fewer; ``places`` int64 ``[M]``.

        A place is an arm's index in the flattened ``[R, K]``; all pulls of a round, or one, come in a call.
        """
        finite = np.isfinite(rewards)
        values = np.where(finite, rewards, 0.0)
        sums = (
            np.ones(len(places)),
            finite.sum(axis=1).astype(np.float64),
            values.sum(axis=1),
            (values**2).sum(axis=1),
        )
        if self.neighbours is not None:
            places, *sums = self.neighbours.spread(places, *sums)  # type: ignore[assignment]
        self.add(places, *sums)

    def add(
        self, places: np.ndarray, pulls: np.ndarray, probes: np.ndarray, total: np.ndarray, squares: np.ndarray
    ) -> None:
        """Add sums of pulls, each float64 ``[M]``, to the arms at ``places``; the hook behind ``observe``."""
        self.tally.add(places, pulls, probes, total, squares)

    def end_round(self) -> None:
        """Close a round (the opening is round 0): the draws of the next are others, and what discounts, discounts."""
        self.number += 1

    def mean(self) -> np.ndarray:
        """Return the reward expected of each arm, float64 ``[K]``; NaN where nothing is known."""
        return self.tally.mean()

    @abstractmethod
    def bonus(self) -> np.ndarray:
        """Return what each arm's score adds to its mean, float64 ``[K]``, in reward units."""

    def variance(self) -> np.ndarray:
        """Return the variance of one document's reward in each arm, float64 ``[K]``; NaN where it is not known."""
        return self.tally.variance()

    def scores(self) -> np.ndarray:
        """Return mean + bonus, float64 ``[K]``; +infinity for an arm without a mean, so it is pulled first."""
        mean = self.mean()
        return np.where(np.isnan(mean), np.inf, mean + self.bonus())

    def hopeful(self, threshold: float) -> np.ndarray:
        """Return which arms may yet prove better than ``threshold``, bool ``[K]``: the others are given up."""
        return self.scores() > threshold

    def values(self) -> np.ndarray:
        """Return what arms are ranked by when grants come at the end, float64 ``[K]``; NaN comes last."""
        return self.mean()

    def choose(self, round: Round) -> np.ndarray:
        """Return the arms to pull, int64 ``[P]``, best score first; ties go to the smaller cluster number.

        For R runs at once ``[R, P]``, padded with -1.
        """
        return best_first(self.scores(), round.open_arms, round.count)

    def settled(self, round: Round) -> bool | np.ndarray:
        """Return whether further probes would change nothing worth their cost (``[R]`` for R runs)."""
        return np.zeros(self.shape[:-1], dtype=bool)

    def shares(self) -> np.ndarray | None:
        """Return each arm's share of the budget, float64 ``[K]`` that sums to 1; None: grants follow the rewards."""
        return None

    def posterior(self) -> Prior:
        """Return what was seen, as the prior of a later run: the mean reward, not what it was shrunk to."""
        variance = self.tally.variance()
        variance = np.where(np.isnan(variance), noise_of(self.tally)[0], variance)
        return Prior(self.tally.mean(), variance, self.tally.probes, self.tally.freedom())


def best_first(priorities: np.ndarray, open_arms: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Return the ``count`` open arms of highest priority, int64, highest first; ties go to the smaller arm.

    ``priorities`` float64 ``[K]`` and ``open_arms`` bool ``[K]`` give ``[P]``; ``[R, K]`` and ``count`` int64 ``[R]``
    give ``[R, P]``, P the largest count, padded with -1.
    """
    keys = np.where(open_arms, -priorities, np.inf)
    if keys.ndim == 1:
        wanted = min(int(count), int(np.count_nonzero(open_arms)))
        if wanted < len(keys):
            # Only what can be among the first is sorted: ten thousand arms a round would not be cheap.
            limit = np.partition(keys, wanted)[wanted]
            near = np.flatnonzero(open_arms & (keys <= limit))
        else:
            near = np.arange(len(keys))
        return near[np.argsort(keys[near], kind="stable")][:wanted]
    most = int(np.max(count, initial=0))
    # A closed arm must not stand before an open one of priority -infinity.
    order = np.argsort(keys, axis=-1, kind="stable")
    if np.isneginf(priorities[open_arms]).any():
        order = np.lexsort((keys, ~open_arms), axis=-1)
    order = order[:, :most]
    wanted_of = np.minimum(count, np.count_nonzero(open_arms, axis=-1))
    return np.where(np.arange(order.shape[1]) < wanted_of[:, None], order, -1)


def policy_names() -> list[str]:
    """Return the names of the registered policies, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def policy_class(name: str) -> type[Policy]:
    """Return the policy of that name. Raises :class:`UserError` for an unknown one."""
    if name not in policy_names():
        raise UserError(f"selection policy '{name}': no such policy; choose one of {', '.join(policy_names())}")
    policy: type[Policy] = import_module(f"{__name__}.{name}").POLICY
    return policy


def takes_option(policy: str, name: str) -> bool:
    """Return whether the policy has an option of that name."""
    return name in {known.name for known in fields(policy_class(policy).Options)}
