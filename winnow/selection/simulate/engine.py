"""The bandit of :mod:`winnow.selection.bandit`, all runs at once: the same choices and grants, without the ledger.

Tests hold it to :func:`winnow.selection.run_bandit`, run by run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from winnow.selection.bandit import make_policy
from winnow.selection.boundary import filled
from winnow.selection.ledger import BanditSettings
from winnow.selection.policies import Policy, Round
from winnow.selection.simulate.judging import Judge
from winnow.selection.simulate.worlds import Ground, World

CELLS = 8_000_000  # documents of all runs that are held at once


@dataclass(frozen=True, eq=False)
class Simulated:
    """What R runs (one a seed) found.

    ``probes`` int64 ``[R]``, all that were measured, the opening included; ``granted`` int64 ``[R, K]`` tokens;
    ``share`` float64 ``[R]``: mass found / mass of the arms' oracle; ``share_documents``, / mass of the best documents;
    ``share_ranked``, the latter when documents are taken across arms by the arm's value and their own score
    (:meth:`Judge.ranked`, with the slope that the probes show), NaN without scores.
    ``curve_probes`` int64 ``[T, R]`` and ``curve_share`` float64 ``[T, R]``: after every round, the share that the
    whole budget would have if it were filled by the policy's values at that moment. ``pool`` is the number of
    documents.
    """

    seeds: np.ndarray
    probes: np.ndarray
    granted: np.ndarray
    share: np.ndarray
    share_documents: np.ndarray
    share_ranked: np.ndarray
    curve_probes: np.ndarray
    curve_share: np.ndarray
    pool: int

    def share_at(self, probes: int) -> np.ndarray:
        """Return each run's share when it had spent at most ``probes`` probes (0 before the first), float64 ``[R]``."""
        fits = (self.curve_probes <= probes).sum(axis=0)
        padded = np.concatenate([np.zeros((1, len(self.seeds))), self.curve_share])
        return padded[fits, np.arange(len(self.seeds))]

    def probes_to(self, share: float, grid: Sequence[int]) -> int | None:
        """Return the least number of ``grid`` from which on the mean share stays at ``share`` or more."""
        reached = None
        for probes in sorted(grid, reverse=True):
            if self.share_at(probes).mean() < share:
                break
            reached = probes
        return reached


def simulate(
    world: World,
    settings: BanditSettings,
    seeds: Sequence[int],
    budget_share: float = 0.2,
    opening: int = 3,
    within: str = "random",
) -> Simulated:
    """Run a policy once a seed on a world's first stage.

    ``budget_share`` of the pool's tokens is granted; ``opening`` probes of every arm come first (0: none, for policies
    with raw rewards). ``settings.seed`` is not read: ``seeds`` replace it. A seed's result does not depend on the
    others.
    """
    first = world.draw(np.array(seeds[:1]))
    step = max(1, CELLS // first.tokens.size)
    parts = []
    for start in range(0, len(seeds), step):
        numbers = np.array(seeds[start : start + step], dtype=np.int64)
        ground = world.draw(numbers)
        judge = Judge.of(ground, 0, within)
        budget = np.maximum(1, np.rint(budget_share * ground.tokens.sum(axis=1))).astype(np.int64)
        runs = Runs(ground, settings, make_policy(ground.facts(), settings, numbers), budget)
        best = judge.mass(judge.best_arms(budget))
        probes, shares = [], []

        def look(runs: Runs = runs, judge: Judge = judge, best: np.ndarray = best) -> None:
            probes.append(runs.probed)  # noqa: B023
            now = filled(runs.policy.values(), runs.arm_tokens, runs.budget)
            shares.append(judge.mass(now) / best)  # noqa: B023

        runs.open(opening)
        look()
        runs.run(look)
        mass, documents = judge.mass(runs.granted), judge.best_documents(budget)
        ranked = np.full(len(numbers), np.nan)
        if ground.scores is not None:
            ranked = judge.ranked(runs.policy.values(), runs.slope(), budget) / documents
        parts.append(
            Simulated(
                numbers, runs.probed, runs.granted, mass / best, mass / documents, ranked,
                np.stack(probes), np.stack(shares), ground.tokens.shape[1],
            )
        )  # fmt: skip
    return _joined(parts)


class Runs:
    """The state of R runs."""

    def __init__(self, ground: Ground, settings: BanditSettings, policy: Policy, budget: np.ndarray) -> None:
        self.ground, self.settings, self.policy = ground, settings, policy
        self.rewards = ground.rewards[:, 0]
        self.arm_tokens = ground.arm_tokens
        runs, arms = self.arm_tokens.shape
        self.starts, self.sizes = ground.starts[:-1], ground.sizes
        self.drawn = np.zeros((runs, arms), dtype=np.int64)
        self.granted = np.zeros((runs, arms), dtype=np.int64)
        self.left = self.arm_tokens.copy()
        self.budget = budget
        self.budget_left = budget.copy()
        self.probes_left = np.full(runs, settings.max_probes, dtype=np.int64)
        self.center, self.scale = np.zeros((runs, 1)), np.ones((runs, 1))
        self.number = 0
        self.active = np.ones(runs, dtype=bool)

    @property
    def probed(self) -> np.ndarray:
        """Probes of each run so far, int64 ``[R]``."""
        return self.drawn.sum(axis=1)

    def values(self) -> np.ndarray:
        """Return what the budget would be filled by, -infinity where nothing is known."""
        values = self.policy.values() if self.settings.grants_at_the_end else self.policy.scores()
        return np.where(np.isfinite(values), values, -np.inf)

    def slope(self) -> np.ndarray:
        """Return what one unit of score is worth within arms by the probes so far, in observed rewards, ``[R]``."""
        scores, sizes = self.ground.scores, self.sizes
        assert scores is not None
        place = np.arange(self.rewards.shape[1]) - np.repeat(self.starts, sizes)
        seen = place < np.repeat(self.drawn, sizes, axis=1)
        count = np.maximum(self.drawn, 1)
        apart = []
        for table in (scores, (self.rewards - self.center) / self.scale):
            mean = self.ground.sums(np.where(seen, table, 0.0)) / count
            apart.append(np.where(seen, table - np.repeat(mean, sizes, axis=1), 0.0))
        slope = (apart[0] * apart[1]).sum(axis=1) / np.maximum((apart[0] ** 2).sum(axis=1), 1e-300)
        return np.maximum(slope, 0.0)

    def open(self, probes: int) -> None:
        """Probe every arm ``probes`` times as far as it has documents, and standardise by what that gave."""
        runs, arms = self.drawn.shape
        everyone = np.broadcast_to(np.arange(arms), (runs, arms))
        counts = np.minimum(probes, self.sizes - self.drawn)
        rewards = self._draw(everyone, counts, probes)
        self.probes_left = np.maximum(0, self.probes_left - counts.sum(axis=1))
        if probes and self.policy.probing and self.policy.standardised:
            seen = rewards.reshape(runs, -1)
            self.center = np.nanmean(seen, axis=1, keepdims=True)
            self.scale = np.nanstd(seen, axis=1, keepdims=True)
            self.scale = np.where(self.scale > 0, self.scale, 1.0)
        if probes and self.policy.probing:
            self._observe(everyone, (counts > 0), rewards)
        self.policy.end_round()

    def run(self, look: object = None) -> None:
        """Play rounds until every run has stopped, calling ``look`` after each, and fill what is left."""
        while self.active.any():
            self._round()
            if callable(look) and self.active.any():
                look()

    def _round(self) -> None:
        settings, threshold, at_the_end = self.settings, self.settings.accept_threshold, self.settings.grants_at_the_end
        policy = self.policy
        to_learn = (self.sizes > self.drawn) & (self.probes_left > 0)[:, None]
        count = np.full(len(self.active), settings.arms_per_round)
        if at_the_end:
            open_arms = to_learn & (self.left > 0)
            stop = (self.probes_left <= 0) | (not policy.probing)
        else:
            open_arms = (self.left > 0) & policy.hopeful(threshold) & (to_learn | (policy.mean() > threshold))
            count = np.minimum(count, -(-self.budget_left // settings.block_tokens))
            stop = self.budget_left <= 0
        count = np.where(self.active, count, 0)
        view = Round(self.number + 1, open_arms, count, self.probes_left, self.budget_left, self.left)
        if at_the_end and policy.probing:
            stop = stop | policy.settled(view)
        self._stop(self.active & (stop | ~open_arms.any(axis=1)))
        if not self.active.any():
            return
        chosen = policy.choose(view)
        valid = (chosen >= 0) & self.active[:, None]
        arms = np.where(valid, chosen, 0)
        self.number += 1
        wanted = np.minimum(settings.probes_per_pull, np.take_along_axis(self.sizes - self.drawn, arms, axis=1)) * valid
        before = np.cumsum(wanted, axis=1) - wanted
        counts = np.clip(self.probes_left[:, None] - before, 0, wanted)
        known = np.take_along_axis(~np.isnan(policy.mean()), arms, axis=1)
        rewards = self._draw(arms, counts, settings.probes_per_pull)
        self.probes_left -= counts.sum(axis=1)
        self._observe(arms, valid & ((counts > 0) | known), rewards)
        if not at_the_end:
            accepted = np.take_along_axis(policy.mean() > threshold, arms, axis=1) & valid
            blocks = np.minimum(settings.block_tokens, np.take_along_axis(self.left, arms, axis=1)) * accepted
            before = np.cumsum(blocks, axis=1) - blocks
            self._grant(arms, np.clip(self.budget_left[:, None] - before, 0, blocks))
        policy.end_round()

    def _stop(self, stopping: np.ndarray) -> None:
        """Grant what is left of the budget in the runs that stop."""
        if stopping.any():
            shares = self.policy.shares()
            values = self.values()
            rest = np.where(stopping, self.budget_left, 0)
            if shares is not None:
                given = np.minimum(np.floor(shares * rest[:, None]).astype(np.int64), self.left)
                part = shares * rest[:, None] - given
                given += np.minimum(filled(part, np.minimum(self.left - given, 1), rest - given.sum(axis=1)), 1)
                self._grant(np.broadcast_to(np.arange(given.shape[1]), given.shape), given)
                rest = np.where(stopping, self.budget_left, 0)
            given = filled(values, self.left, rest)
            self._grant(np.broadcast_to(np.arange(given.shape[1]), given.shape), given)
            self.active &= ~stopping

    def _grant(self, arms: np.ndarray, tokens: np.ndarray) -> None:
        places = (arms + self._offsets()).reshape(-1)
        np.add.at(self.granted.reshape(-1), places, tokens.reshape(-1))
        np.subtract.at(self.left.reshape(-1), places, tokens.reshape(-1))
        self.budget_left = self.budget_left - tokens.sum(axis=1)

    def _draw(self, arms: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
        """Return the next ``counts`` ``[R, P]`` rewards of the arms, float64 ``[R, P, width]``, NaN beyond."""
        first = self.starts[arms] + np.take_along_axis(self.drawn, arms, axis=1)
        steps = np.arange(width)
        inside = steps < counts[..., None]
        at = np.where(inside, first[..., None] + steps, 0)
        runs = np.arange(len(arms))[:, None, None]
        np.add.at(self.drawn.reshape(-1), (arms + self._offsets()).reshape(-1), counts.reshape(-1))
        return np.where(inside, self.rewards[runs, at], np.nan)

    def _observe(self, arms: np.ndarray, seen: np.ndarray, rewards: np.ndarray) -> None:
        if rewards.shape[-1] and seen.any():
            places = (arms + self._offsets())[seen]
            table = (rewards - self.center[..., None]) / self.scale[..., None]
            self.policy.observe_pulls(places, table[seen])

    def _offsets(self) -> np.ndarray:
        runs, arms = self.drawn.shape
        return (np.arange(runs) * arms)[:, None]


def _joined(parts: list[Simulated]) -> Simulated:
    """Put the runs of several parts beside each other; shorter curves stay at their last value."""
    longest = max(len(part.curve_share) for part in parts)

    def pad(curve: np.ndarray) -> np.ndarray:
        return np.concatenate([curve, np.repeat(curve[-1:], longest - len(curve), axis=0)])

    def together(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    return Simulated(
        together("seeds"), together("probes"), together("granted"), together("share"), together("share_documents"),
        together("share_ranked"),
        np.concatenate([pad(part.curve_probes) for part in parts], axis=1),
        np.concatenate([pad(part.curve_share) for part in parts], axis=1),
        parts[0].pool,
    )  # fmt: skip
