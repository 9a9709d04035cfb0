"""The bandit over clusters: probe a few documents of an arm at a time, and grant arms tokens by what they show.

Rewards are standardised by the mean and standard deviation of the *opening* round, which stay fixed: so options and the
threshold keep their meaning from round to round, a verdict is never revised by later probes, and each row of the
ledger can be checked from the opening rows alone.

Tokens are granted in one of two ways. ``blocks``, Quad's: an arm is *open* while it has tokens left and its score is
above the threshold (what even optimism does not put above it is not probed again; once it has no documents left to
probe, or the run no probes, its mean has to be above it too), and every pull that leaves the mean above the threshold
grants a block; what the loop leaves of the budget is filled in the order of the scores. ``final``: an arm is open while
it has documents to probe; when the probes are spent or the policy is settled, the budget is filled in the order of the
means, or (``ranked``) of the documents' values, to which means and an influence model's scores add up.

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
from winnow.selection.facts import ArmFacts, Prior
from winnow.selection.ledger import BanditResult, BanditSettings, Pull, bonus_ratio
from winnow.selection.policies import Policy, Round, policy_class
from winnow.selection.ranking import ranked_grants, score_slope

log = logging.getLogger(__name__)

Measure = Callable[[np.ndarray], np.ndarray]
NOTHING = np.zeros(0, dtype=np.int64)


def run_bandit(
    arms: Arms,
    opening: np.ndarray,
    opening_rewards: np.ndarray,
    measure: Measure,
    token_budget: int,
    settings: BanditSettings,
    facts: ArmFacts | None = None,
    scores: np.ndarray | None = None,
) -> BanditResult:
    """Pull arms until the probes or ``token_budget`` are spent, grant all of it, and return the ledger.

    ``opening`` int64 ``[P]`` positions already measured (:func:`opening_probes`) and ``opening_rewards`` float ``[P]``
    their influence; ``measure`` maps positions int64 ``[M]`` to influence float ``[M]``, positive = helpful, and is
    called once a round. ``facts``: what is known of the arms (:func:`arm_facts`). ``scores`` float64 ``[N]``, what an
    influence model says of the candidates, for grants that are ``ranked`` (without scores these are ``final``). A
    reward that is not finite is excluded and counted. The grants sum to exactly ``min(token_budget,
    arms.pool_tokens)``. Raises :class:`UserError` when no opening reward is finite (a policy without probes needs
    none).
    """
    run = _Run(arms, measure, min(token_budget, arms.pool_tokens), settings, facts or arm_facts(arms), scores)
    run.open(np.asarray(opening, dtype=np.int64), np.asarray(opening_rewards, dtype=np.float64))
    while run.budget_left > 0 and run.round():
        pass
    run.fill()
    return BanditResult(
        pulls=run.pulls,
        granted_tokens=run.granted,
        probed=np.concatenate([NOTHING, *run.probed]),
        rewards=np.concatenate([np.zeros(0, dtype=np.float64), *run.rewards]),
        excluded=np.concatenate([NOTHING, *run.excluded]),
        center=run.center,
        scale=run.scale,
        posterior=run.policy.posterior(),
        values=run.values(),
    )


def arm_facts(
    arms: Arms,
    centroids: np.ndarray | None = None,
    features: np.ndarray | None = None,
    prior: Prior | None = None,
) -> ArmFacts:
    """Return the facts of ``arms``; the other arrays have a row an arm, in the order of ``arms.clusters``."""
    return ArmFacts(arms.sizes(), arms.arm_tokens(), centroids, features, prior)


def make_policy(facts: ArmFacts, settings: BanditSettings, seed: int | np.ndarray) -> Policy:
    """Return the policy that the settings name, with its options and neighbours."""
    policy = policy_class(settings.policy)(facts, settings.policy_options, seed)
    if settings.neighbour_radius > 0:
        policy.share(settings.neighbour_radius, settings.neighbour_counts)
    return policy


class _Run:
    """The state of one run; arms are indices into ``arms.clusters``."""

    def __init__(
        self,
        arms: Arms,
        measure: Measure,
        token_budget: int,
        settings: BanditSettings,
        facts: ArmFacts,
        scores: np.ndarray | None,
    ) -> None:
        self.arms, self.measure, self.settings = arms, measure, settings
        self.policy = make_policy(facts, settings, settings.seed)
        self.budget = self.budget_left = token_budget
        members = arms.seeded_positions(settings.seed, PROBE_SALT)
        self.order = np.concatenate([NOTHING, *members])  # by arm, in the seeded order within
        self.cumulated = [np.cumsum(arms.tokens[positions]) for positions in members]
        self.unprobed, self.unprobed_starts = self.order, arms.starts
        self.drawn = np.zeros(len(arms), dtype=np.int64)
        self.granted = np.zeros(len(arms), dtype=np.int64)
        self.left = arms.arm_tokens()
        self.probes_left = settings.max_probes
        self.probe_tokens_left: float = settings.max_probe_tokens or math.inf
        self.scores = None if settings.grants != "ranked" or scores is None else np.asarray(scores, dtype=np.float64)
        self.measured = np.full(len(arms.tokens), np.nan)  # standardised rewards
        self.silent = np.zeros(len(arms), dtype=bool)  # probed, but without any finite reward
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
        if len(np.unique(opening)) < len(opening):
            raise ValueError("a document is twice among the opening probes")
        opened = np.zeros(len(self.arms.positions), dtype=bool)
        opened[opening] = True
        value = np.full(len(opened), np.nan)
        value[opening] = rewards
        # In the arms' own order, so that sums do not depend on the order in which the probes came.
        probes = self.order[opened[self.order]]
        if self.policy.probing and self.policy.standardised:
            values = value[probes]
            self.center, self.scale = _standard(values[np.isfinite(values)])
        self.probes_left = max(0, self.probes_left - len(opening))
        self.unprobed = self.order[~opened[self.order]]
        arm_of = self.arms.arm_of
        everyone = np.arange(len(self.arms) + 1)
        self.unprobed_starts = np.searchsorted(arm_of[self.unprobed], everyone).astype(np.int64)
        starts = np.searchsorted(arm_of[probes], everyone)
        pulls = [
            (arm, probes[starts[arm] : starts[arm + 1]], value[probes[starts[arm] : starts[arm + 1]]])
            for arm in np.flatnonzero(np.diff(starts)).tolist()
        ]
        self._observe(pulls)
        means = self.policy.mean()
        for arm, documents, values in pulls:
            self._record(arm, documents, values, float(means[arm]), math.nan, math.nan, 0, "opening")
        self.policy.end_round()

    def round(self) -> bool:
        """Choose arms, probe them in one measurement, grant or refuse; False when no arm is worth a pull."""
        at_the_end, threshold = self.settings.grants_at_the_end, self.settings.accept_threshold
        if not self.policy.probing or (at_the_end and self.probes_left <= 0):
            return False
        scores, bonuses = self.policy.scores(), self.policy.bonus()
        to_learn = (np.diff(self.unprobed_starts) > self.drawn) & (self.probes_left > 0)
        count = self.settings.arms_per_round
        if at_the_end:
            open_arms = to_learn & (self.left > 0)
        else:
            open_arms = (self.left > 0) & self.policy.hopeful(threshold) & (to_learn | (self.policy.mean() > threshold))
            # No more arms than could use up the budget: the last of them would be measured for nothing.
            count = min(count, -(-self.budget_left // self.settings.block_tokens))
        view = Round(self.number + 1, open_arms, count, self.probes_left, self.budget_left, self.left)
        if at_the_end and self.policy.settled(view):
            return False
        chosen = self.policy.choose(view).tolist()
        if len(set(chosen)) < len(chosen) or len(chosen) > count or not open_arms[chosen].all():
            raise ValueError(f"policy '{self.settings.policy}' chose {chosen}: not {count} distinct open arms")
        if not chosen:
            return False
        self.number += 1
        pulls = self._probe(chosen)
        self._observe(pulls)
        means = self.policy.mean()
        for arm, probes, rewards in pulls:
            accepted = bool(means[arm] > threshold) and not at_the_end
            tokens = min(self.settings.block_tokens, int(self.left[arm]), self.budget_left) if accepted else 0
            verdict = "probed" if at_the_end else "accepted" if accepted else "refused"
            self._record(
                arm, probes, rewards, float(means[arm]), float(bonuses[arm]), float(scores[arm]), tokens, verdict
            )
        self.policy.end_round()
        self._tell(self.pulls[-len(chosen) :])
        return True

    def fill(self) -> None:
        """Grant the rest of the budget without probes: by the policy's shares, then best first.

        Best is the highest score, or with grants at the end the highest mean; arms without a reward come last.
        """
        if self.budget_left <= 0:
            return
        self.number += 1
        means, scores, bonuses = self.policy.mean(), self.policy.scores(), self.policy.bonus()
        wanted = np.zeros(len(self.arms), dtype=np.int64)
        shares = self.policy.shares()
        if shares is not None:
            wanted = np.minimum(_whole(shares * self.budget_left, self.budget_left), self.left)
        value = self.values()
        if self.scores is not None:
            slope = score_slope(self.arms.arm_of, self.scores, self.measured, len(self.arms))
            wanted = ranked_grants(self.arms, value, slope, self.scores, self.budget_left)
            log.info(
                "a standard deviation of score is worth %.3f of reward within clusters",
                slope * float(np.nanstd(self.scores)),
            )
        for arm in np.argsort(-value, kind="stable").tolist():
            rest = self.budget_left - int(wanted.sum())
            wanted[arm] += min(int(self.left[arm]) - int(wanted[arm]), rest)
            if wanted[arm] > 0:
                tokens, wanted[arm] = int(wanted[arm]), 0
                self._record(
                    arm, NOTHING, NOTHING.astype(float), float(means[arm]), float(bonuses[arm]), float(scores[arm]),
                    tokens, "filled",
                )  # fmt: skip
        log.info("round %d: the rest of the %d tokens granted without probes", self.number, self.budget)

    def values(self) -> np.ndarray:
        """Return what arms are filled by, standardised; -infinity for an arm of which nothing is known."""
        value = self.policy.values() if self.settings.grants_at_the_end else self.policy.scores()
        return np.where(np.isfinite(value) & ~self.silent, value, -np.inf)

    def _probe(self, chosen: list[int]) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Draw and measure the next probes of the chosen arms, as far as documents and probes last."""
        drawn = []
        for arm in chosen:
            start = self.unprobed_starts[arm] + self.drawn[arm]
            count = min(self.settings.probes_per_pull, self.probes_left)
            probes = self.unprobed[start : min(start + count, self.unprobed_starts[arm + 1])]
            cost = np.cumsum(self.arms.tokens[probes])
            fit = int(np.searchsorted(cost, self.probe_tokens_left, side="right"))
            self.probes_left -= fit
            if fit < len(probes):
                probes, self.probes_left = probes[:fit], 0
            if fit:
                self.probe_tokens_left -= int(cost[fit - 1])
            self.drawn[arm] += fit
            drawn.append(probes)
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

    def _observe(self, pulls: list[tuple[int, np.ndarray, np.ndarray]]) -> None:
        """Hand the pulls of a round to the policy; one that learnt nothing new of an unknown arm is no pull."""
        known = ~np.isnan(self.policy.mean())
        seen = []
        for arm, probes, rewards in pulls:
            finite = np.isfinite(rewards)
            self.measured[probes] = (rewards - self.center) / self.scale
            if not finite.all():
                self.excluded.append(probes[~finite])
            if finite.any() or (not len(probes) and known[arm]):
                seen.append((arm, (rewards[finite] - self.center) / self.scale))
                self.silent[arm] = False
            elif len(probes) and np.isnan(self.policy.tally.mean()[arm]):
                self.silent[arm] = True
        if seen:
            widest = max(len(rewards) for _, rewards in seen)
            table = np.full((len(seen), widest), np.nan)
            for row, (_, rewards) in enumerate(seen):
                table[row, : len(rewards)] = rewards
            self.policy.observe_pulls(np.array([arm for arm, _ in seen], dtype=np.int64), table)

    def _record(
        self,
        arm: int,
        probes: np.ndarray,
        rewards: np.ndarray,
        mean: float,
        bonus: float,
        score: float,
        tokens: int,
        verdict: str,
    ) -> None:
        before = int(self.granted[arm])
        self.granted[arm] += tokens
        self.left[arm] -= tokens
        self.budget_left -= tokens
        documents = np.searchsorted(self.cumulated[arm], [before, before + tokens], side="right")
        finite = rewards[np.isfinite(rewards)]
        reward = math.nan if len(probes) else self.center + self.scale * mean
        self.pulls.append(
            Pull(
                round=self.number,
                cluster=int(self.arms.clusters[arm]),
                probes=len(probes),
                excluded=len(rewards) - len(finite),
                reward=float(finite.mean()) if len(finite) else reward,
                reward_variance=float(finite.var(ddof=1)) if len(finite) > 1 else math.nan,
                arm_mean=mean,
                bonus=bonus,
                score=score,
                documents_granted=int(documents[1] - documents[0]),
                tokens_granted=tokens,
                verdict=verdict,
                cost=int(self.arms.tokens[probes].sum()),
            )
        )

    def _tell(self, latest: list[Pull]) -> None:
        log.info(
            "round %d: %d pulls, %d accepted, %d of %d tokens granted, %d probes left, bonus/reward %.2f",
            self.number,
            len(latest),
            sum(pull.verdict == "accepted" for pull in latest),
            self.budget - self.budget_left,
            self.budget,
            self.probes_left,
            bonus_ratio(latest),
        )


def _whole(wanted: np.ndarray, total: int) -> np.ndarray:
    """Round float ``[K]`` to int64 of that total by largest remainders (Hamilton); ties go to the smaller arm."""
    floors = np.floor(wanted).astype(np.int64)
    rest = max(0, total - int(floors.sum()))
    floors[np.argsort(floors - wanted, kind="stable")[:rest]] += 1
    return floors


def _standard(rewards: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation; 1 for the latter where the rewards differ by rounding only."""
    if not len(rewards):
        raise UserError(
            "opening probes: none has a finite reward; check the checkpoint and the reference set, then probe again"
        )
    center = float(rewards[0]) if np.ptp(rewards) == 0 else float(rewards.mean())
    deviation = float(rewards.std())
    return center, deviation if deviation > 1e-12 * float(np.abs(rewards).max()) else 1.0
