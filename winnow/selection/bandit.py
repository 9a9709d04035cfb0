"""The bandit over clusters: probe a few documents, grant the cluster a block of tokens if they help.

Rewards are standardised by the mean and standard deviation of the *opening* round, which stay fixed: so ``alpha`` and
the threshold keep their meaning from round to round, a verdict is never revised by later probes, and each row of the
ledger can be checked from the opening rows alone.

An arm is *open* while it has tokens left and its score (mean + bonus) is above the threshold: what even optimism does
not put above it is not probed again. Once it has no documents left to probe, or the run no probes, its mean has to be
above the threshold too. What the loop leaves of the budget is then filled in the order of the scores.

Source: Quad (arXiv 2409.16986), section 4; the remedies are those of its known defects: standardised rewards, seeded
probes without replacement, grants capped by what the cluster has, exhausted arms never revived.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import numpy as np

from winnow.errors import UserError
from winnow.selection.arms import PROBE_SALT, Arms
from winnow.selection.ledger import BanditResult, BanditSettings, Pull, bonus_ratio
from winnow.selection.policies import BanditState, policy_class

log = logging.getLogger(__name__)


def run_bandit(
    arms: Arms,
    opening: np.ndarray,
    opening_rewards: np.ndarray,
    measure: Callable[[np.ndarray], np.ndarray],
    token_budget: int,
    settings: BanditSettings,
) -> BanditResult:
    """Pull arms until ``token_budget`` tokens are granted, and return the ledger.

    ``opening`` int64 ``[P]`` positions already measured (:func:`opening_probes`) and ``opening_rewards`` float ``[P]``
    their influence; ``measure`` maps positions int64 ``[M]`` to influence float ``[M]``, positive = helpful, and is
    called once a round. A reward that is not finite is excluded and counted. The grants sum to exactly
    ``min(token_budget, arms.pool_tokens)``. Raises :class:`UserError` when no opening reward is finite.
    """
    run = _Run(arms, measure, min(token_budget, arms.pool_tokens), settings)
    run.open(np.asarray(opening, dtype=np.int64), np.asarray(opening_rewards, dtype=np.float64))
    while run.budget_left > 0 and run.round():
        pass
    run.fill()
    return BanditResult(
        pulls=run.pulls,
        granted_tokens=run.granted,
        probed=np.concatenate([np.zeros(0, dtype=np.int64), *run.probed]),
        rewards=np.concatenate([np.zeros(0, dtype=np.float64), *run.rewards]),
        excluded=np.concatenate([np.zeros(0, dtype=np.int64), *run.excluded]),
        center=run.center,
        scale=run.scale,
    )


class _Run:
    """The state of one run; arms are indices into ``arms.clusters``."""

    def __init__(
        self, arms: Arms, measure: Callable[[np.ndarray], np.ndarray], token_budget: int, settings: BanditSettings
    ) -> None:
        self.arms, self.measure, self.settings = arms, measure, settings
        self.policy = policy_class(settings.policy)(len(arms), settings.alpha)
        self.budget = self.budget_left = token_budget
        self.members = arms.seeded_positions(settings.seed, PROBE_SALT)
        self.cumulated = [np.cumsum(arms.tokens[members]) for members in self.members]
        self.unprobed = list(self.members)
        self.granted = np.zeros(len(arms), dtype=np.int64)
        self.left = arms.arm_tokens()
        self.probes_left = settings.max_probes
        self.pulls: list[Pull] = []
        self.probed: list[np.ndarray] = []
        self.rewards: list[np.ndarray] = []
        self.excluded: list[np.ndarray] = []
        self.number = 0
        self.center, self.scale = 0.0, 1.0

    def open(self, opening: np.ndarray, rewards: np.ndarray) -> None:
        """Standardise by the opening probes, and make them every arm's first pull."""
        if opening.shape != rewards.shape:
            raise ValueError(f"{len(opening)} opening probes, but {len(rewards)} rewards")
        if not len(self.arms.positions):
            return
        reward_of = dict(zip(opening.tolist(), rewards.tolist(), strict=True))
        if len(reward_of) < len(opening):
            raise ValueError("a document is twice among the opening probes")
        # In the arms' own order, so that sums do not depend on the order in which the probes came.
        first = [np.array([p for p in members.tolist() if p in reward_of], dtype=np.int64) for members in self.members]
        values = [np.array([reward_of[p] for p in probes.tolist()], dtype=np.float64) for probes in first]
        everything = np.concatenate(values)
        self.center, self.scale = _standard(everything[np.isfinite(everything)])
        self.probes_left = max(0, self.probes_left - len(opening))
        for arm, (probes, value) in enumerate(zip(first, values, strict=True)):
            self.unprobed[arm] = np.array([p for p in self.members[arm].tolist() if p not in reward_of], dtype=np.int64)
            if len(probes):
                self._observe(arm, probes, value)
                self._record(arm, probes, value, math.nan, math.nan, 0, "opening")

    def round(self) -> bool:
        """Choose arms, probe them in one measurement, grant or refuse; False when no arm is worth a pull."""
        threshold = self.settings.accept_threshold
        scores, bonuses = self.policy.scores(), self.policy.bonus()
        to_learn = np.array([len(unprobed) > 0 for unprobed in self.unprobed], dtype=bool) & (self.probes_left > 0)
        open_arms = (self.left > 0) & (scores > threshold) & (to_learn | (self.policy.mean() > threshold))
        # No more arms than could use up the budget: the last of them would be measured for nothing.
        count = min(self.settings.arms_per_round, -(-self.budget_left // self.settings.block_tokens))
        chosen = self.policy.choose(BanditState(open_arms, count)).tolist()
        if len(set(chosen)) < len(chosen) or len(chosen) > count or not open_arms[chosen].all():
            raise ValueError(f"policy '{self.settings.policy}' chose {chosen}: not {count} distinct open arms")
        if not chosen:
            return False
        self.number += 1
        for arm, probes, rewards in self._probe(chosen):
            self._observe(arm, probes, rewards)
            accepted = bool(self.policy.mean()[arm] > threshold)
            tokens = min(self.settings.block_tokens, int(self.left[arm]), self.budget_left) if accepted else 0
            verdict = "accepted" if accepted else "refused"
            self._record(arm, probes, rewards, float(bonuses[arm]), float(scores[arm]), tokens, verdict)
        latest = self.pulls[-len(chosen) :]
        log.info(
            "round %d: %d of %d pulls accepted, %d of %d tokens granted, %d probes left, bonus/reward %.2f",
            self.number,
            sum(pull.verdict == "accepted" for pull in latest),
            len(latest),
            self.budget - self.budget_left,
            self.budget,
            self.probes_left,
            bonus_ratio(latest),
        )
        return True

    def fill(self) -> None:
        """Grant the rest of the budget without probes, by falling score; arms without a reward come last."""
        if self.budget_left <= 0:
            return
        self.number += 1
        scores, bonuses = self.policy.scores(), self.policy.bonus()
        nothing = np.zeros(0, dtype=np.int64)
        for arm in np.argsort(-np.where(np.isinf(scores), -np.inf, scores), kind="stable").tolist():
            tokens = min(int(self.left[arm]), self.budget_left)
            if tokens > 0:
                self._record(
                    arm, nothing, nothing.astype(float), float(bonuses[arm]), float(scores[arm]), tokens, "filled"
                )
        log.info("round %d: the rest of the %d tokens granted without probes", self.number, self.budget)

    def _probe(self, chosen: list[int]) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Draw and measure the next probes of the chosen arms, as far as documents and probes last."""
        drawn = []
        for arm in chosen:
            count = min(self.settings.probes_per_pull, self.probes_left)
            drawn.append(self.unprobed[arm][:count])
            self.unprobed[arm] = self.unprobed[arm][count:]
            self.probes_left -= len(drawn[-1])
        positions = np.concatenate(drawn)
        rewards = np.zeros(0, dtype=np.float64)
        if len(positions):
            rewards = np.asarray(self.measure(positions), dtype=np.float64)
            if rewards.shape != positions.shape:
                raise ValueError(f"measure returned shape {rewards.shape} for {len(positions)} documents")
            self.probed.append(positions)
            self.rewards.append(rewards)
        cuts = np.cumsum([len(probes) for probes in drawn])[:-1]
        return list(zip(chosen, drawn, np.split(rewards, cuts), strict=True))

    def _observe(self, arm: int, probes: np.ndarray, rewards: np.ndarray) -> None:
        finite = np.isfinite(rewards)
        if not finite.all():
            self.excluded.append(probes[~finite])
        if len(probes) and not finite.any():
            return  # nothing was learnt: not a pull of the formula
        if len(probes) or not np.isnan(self.policy.mean()[arm]):
            self.policy.observe(arm, (rewards[finite] - self.center) / self.scale)

    def _record(
        self, arm: int, probes: np.ndarray, rewards: np.ndarray, bonus: float, score: float, tokens: int, verdict: str
    ) -> None:
        before = int(self.granted[arm])
        self.granted[arm] += tokens
        self.left[arm] -= tokens
        self.budget_left -= tokens
        documents = np.searchsorted(self.cumulated[arm], [before, before + tokens], side="right")
        finite = rewards[np.isfinite(rewards)]
        arm_mean = float(self.policy.mean()[arm])
        reward = math.nan if len(probes) else self.center + self.scale * arm_mean
        self.pulls.append(
            Pull(
                round=self.number,
                cluster=int(self.arms.clusters[arm]),
                probes=len(probes),
                excluded=len(rewards) - len(finite),
                reward=float(finite.mean()) if len(finite) else reward,
                reward_variance=float(finite.var(ddof=1)) if len(finite) > 1 else math.nan,
                arm_mean=arm_mean,
                bonus=bonus,
                score=score,
                documents_granted=int(documents[1] - documents[0]),
                tokens_granted=tokens,
                verdict=verdict,
                cost=int(self.arms.tokens[probes].sum()),
            )
        )


def _standard(rewards: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation; 1 for the latter where the rewards differ by rounding only."""
    if not len(rewards):
        raise UserError(
            "opening probes: none has a finite reward; check the checkpoint and the reference set, then probe again"
        )
    center = float(rewards[0]) if np.ptp(rewards) == 0 else float(rewards.mean())
    deviation = float(rewards.std())
    return center, deviation if deviation > 1e-12 * float(np.abs(rewards).max()) else 1.0
