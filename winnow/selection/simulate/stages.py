"""Selection by stages while rewards drift: the loop of checkpoints, all runs at once.

Every stage has a part of the token budget and of the probes, measures by its own rewards, and takes documents once:
what a stage was granted is gone for the next. ``carry`` is what a stage hands to the next: ``keep`` the policy as it is
(what it forgets by itself is its own business), ``prior`` what it saw as a prior, aged by ``remember``
(:func:`winnow.selection.belief.aged`), ``nothing`` a fresh start with its own opening.

The regret of a stage is the mass that the arms' oracle would have taken of what this run had left, less what it took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from winnow.errors import UserError
from winnow.selection.bandit import make_policy
from winnow.selection.belief import aged
from winnow.selection.ledger import BanditSettings
from winnow.selection.simulate.engine import CELLS, Runs
from winnow.selection.simulate.judging import Judge
from winnow.selection.simulate.worlds import Ground, World

CARRIES = ("keep", "prior", "nothing")


@dataclass(frozen=True, eq=False)
class Staged:
    """Per seed and stage, each ``[R, S]``: ``regret`` and ``best``, the oracle's mass, in reward units a token of the
    stage's budget; ``probes`` int64, those of the stage."""

    seeds: np.ndarray
    regret: np.ndarray
    best: np.ndarray
    probes: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Mass found / mass of the oracle over all stages, float64 ``[R]``."""
        return 1 - self.regret.sum(axis=1) / self.best.sum(axis=1)


def simulate_stages(
    world: World,
    settings: BanditSettings,
    seeds: Sequence[int],
    budget_share: float = 0.2,
    opening: int = 3,
    carry: str = "keep",
    remember: float = 0.5,
) -> Staged:
    """Run a policy once a seed through all stages of a world.

    ``budget_share`` of the pool and ``settings.max_probes`` are for all stages together, in equal parts. With
    ``nothing`` every stage opens anew out of its part; else only the first does, and the parts are of what the
    opening leaves. Raises :class:`UserError` on an unknown ``carry`` and when the openings alone take more probes.
    """
    if carry not in CARRIES:
        raise UserError(f"carry: '{carry}'; expected {', '.join(CARRIES)}")
    first = world.draw(np.array(seeds[:1]))
    step = max(1, CELLS // first.rewards.size)
    parts = []
    for start in range(0, len(seeds), step):
        numbers = np.array(seeds[start : start + step], dtype=np.int64)
        parts.append(_play(world.draw(numbers), settings, numbers, budget_share, opening, carry, remember))
    return Staged(*(np.concatenate([getattr(part, name) for part in parts]) for name in Staged.__annotations__))


def _play(
    ground: Ground,
    settings: BanditSettings,
    seeds: np.ndarray,
    budget_share: float,
    opening: int,
    carry: str,
    remember: float,
) -> Staged:
    stages = ground.rewards.shape[1]
    pool = ground.tokens.sum(axis=1)
    budget = np.maximum(1, np.rint(budget_share * pool / stages)).astype(np.int64)
    opened = int(np.minimum(opening, ground.sizes).sum()) * (stages if carry == "nothing" else 1)
    if opened > settings.max_probes:
        raise UserError(f"max_probes: {settings.max_probes}, but the openings take {opened}; raise it")
    probes_a_stage = (settings.max_probes - opened) // stages
    runs = Runs(ground, settings, make_policy(ground.facts(), settings, seeds), budget)
    granted_before = np.zeros_like(runs.granted)
    regrets, bests, probes = [], [], []
    for stage in range(stages):
        if stage and carry != "keep":
            prior = aged(runs.policy.posterior(), remember) if carry == "prior" else None
            # Draws of another stage are others: its number goes into the seed.
            runs.policy = make_policy(replace(ground.facts(), prior=prior), settings, seeds + (stage << 32))
        runs.rewards = ground.rewards[:, stage]
        runs.budget_left = np.minimum(budget, runs.left.sum(axis=1))
        runs.probes_left = np.full(len(seeds), probes_a_stage, dtype=np.int64)
        runs.active = np.ones(len(seeds), dtype=bool)
        judge = Judge.of(ground, stage)
        given = runs.budget_left.copy()
        best = judge.mass(judge.best_arms(given, runs.left))
        drawn = runs.probed
        if stage == 0 or carry == "nothing":
            runs.probes_left += opened // (stages if carry == "nothing" else 1)
            runs.open(opening)
        runs.run()
        mass = judge.mass(runs.granted - granted_before)
        granted_before = runs.granted.copy()
        regrets.append((best - mass) / np.maximum(given, 1))
        bests.append(best / np.maximum(given, 1))
        probes.append(runs.probed - drawn)
    return Staged(seeds, np.stack(regrets, axis=1), np.stack(bests, axis=1), np.stack(probes, axis=1))
