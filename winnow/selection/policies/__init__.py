"""Selection policies, one a file; the file's name is the policy's name, and adding the file registers it.

A policy file defines ``POLICY``, a subclass of :class:`Policy`.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib import import_module

import numpy as np

from winnow.errors import UserError


@dataclass(frozen=True, eq=False)
class BanditState:
    """What a policy may choose from: ``open_arms`` bool ``[K]``, and at most ``count`` arms a round."""

    open_arms: np.ndarray
    count: int


class Policy(ABC):
    """Which arms to pull next, from the rewards seen so far.

    Rewards arrive standardised (z-scores by the opening round), positive = helpful, so that ``alpha`` and the accept
    threshold are in reward units. Arms are indices ``0 .. K-1``.
    """

    def __init__(self, arms: int, alpha: float) -> None:
        self.arms = arms
        self.alpha = alpha

    @abstractmethod
    def observe(self, arm: int, rewards: np.ndarray) -> None:
        """Take in one pull: its finite rewards, float64 ``[P]``; empty = a pull that reused the arm's mean."""

    @abstractmethod
    def mean(self) -> np.ndarray:
        """Return the reward expected of each arm, float64 ``[K]``; NaN where none has been seen."""

    @abstractmethod
    def bonus(self) -> np.ndarray:
        """Return the exploration bonus of each arm, float64 ``[K]``, in reward units; NaN where the mean is."""

    def scores(self) -> np.ndarray:
        """Return mean + bonus, float64 ``[K]``; +infinity for an arm without a reward, so it is pulled first."""
        mean = self.mean()
        return np.where(np.isnan(mean), np.inf, mean + self.bonus())

    def choose(self, state: BanditState) -> np.ndarray:
        """Return the arms to pull, int64, best score first; ties go to the smaller cluster number."""
        order = np.argsort(-self.scores(), kind="stable")
        return order[state.open_arms[order]][: state.count]


def policy_names() -> list[str]:
    """Return the names of the registered policies, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def policy_class(name: str) -> type[Policy]:
    """Return the policy of that name. Raises :class:`UserError` for an unknown one."""
    if name not in policy_names():
        raise UserError(f"selection policy '{name}': no such policy; choose one of {', '.join(policy_names())}")
    policy: type[Policy] = import_module(f"{__name__}.{name}").POLICY
    return policy
