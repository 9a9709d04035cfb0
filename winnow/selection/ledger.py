"""What a bandit run is told and what it tells: its settings, the ledger of its pulls, its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.selection.facts import Prior
from winnow.selection.neighbours import SHARING
from winnow.selection.options import Value, read_options
from winnow.selection.policies import policy_class

GRANTS = ("blocks", "final", "ranked")

LEDGER = pa.schema(
    [
        ("round", pa.int32()),
        ("cluster", pa.int64()),
        ("probes", pa.int32()),
        ("excluded", pa.int32()),
        ("reward", pa.float64()),
        ("reward_variance", pa.float64()),
        ("arm_mean", pa.float64()),
        ("bonus", pa.float64()),
        ("score", pa.float64()),
        ("documents_granted", pa.int64()),
        ("tokens_granted", pa.int64()),
        ("verdict", pa.string()),
        ("cost", pa.int64()),
    ]
)


@dataclass(frozen=True)
class BanditSettings:
    """How the bandit spends probes and grants tokens.

    ``policy`` with its ``policy_options``. ``accept_threshold`` (Quad's tau; 0 = better than the mean of the opening)
    is in standard deviations of the opening rewards, as rewards are (in raw influence for a policy that takes raw
    rewards). ``grants``: ``blocks`` grants ``block_tokens`` with every accepted pull; ``final`` probes first, until the
    probes are spent or the policy is settled, and grants then, best mean first; ``ranked`` does too, but each arm as
    many tokens as it has among the best documents (:mod:`winnow.selection.ranking`); "" leaves it to the policy.
    ``max_probes`` counts documents measured in all, the opening included; ``max_probe_tokens``, if not 0, limits the
    tokens of those after the opening: the first document over it ends the probing. ``neighbour_radius``, if not 0,
    shares rewards between arms with centroids nearer than that. Raises :class:`UserError` on a value out of range.
    """

    block_tokens: int
    max_probes: int
    policy: str = "quad_ucb"
    policy_options: Mapping[str, Value] = field(default_factory=dict)
    grants: str = ""
    arms_per_round: int = 8
    probes_per_pull: int = 8
    accept_threshold: float = 0.0
    max_probe_tokens: int = 0
    neighbour_radius: float = 0.0
    neighbour_counts: str = "weighted"
    seed: int = 0

    def __post_init__(self) -> None:
        read_options(f"selection policy '{self.policy}'", policy_class(self.policy).Options, self.policy_options)
        least = {"block_tokens": 1, "max_probes": 0, "arms_per_round": 1, "probes_per_pull": 1, "max_probe_tokens": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise UserError(f"bandit, {name}: {getattr(self, name)}; expected at least {smallest}")
        if not (math.isfinite(self.neighbour_radius) and self.neighbour_radius >= 0):
            raise UserError(f"bandit, neighbour_radius: {self.neighbour_radius}; expected a finite number, 0 or more")
        if not math.isfinite(self.accept_threshold):
            raise UserError(f"bandit, accept_threshold: {self.accept_threshold}; expected a finite number")
        for name, allowed in (("grants", ("", *GRANTS)), ("neighbour_counts", SHARING)):
            if getattr(self, name) not in allowed:
                words = " or ".join(repr(word) for word in allowed)
                raise UserError(f"bandit, {name}: '{getattr(self, name)}'; expected {words}")

    @property
    def grants_at_the_end(self) -> bool:
        """Whether tokens are granted after all probes, as they must be where there are none."""
        policy = policy_class(self.policy)
        return not policy.probing or (self.grants or policy.grants) != "blocks"


@dataclass(frozen=True)
class Pull:
    """A row of the ledger.

    ``reward`` and ``reward_variance`` are of this pull's finite probes in raw influence (of the arm's mean when a pull
    measured nothing); ``arm_mean`` (after the pull), ``bonus`` and ``score`` (when it was chosen) are standardised;
    ``excluded`` counts probes without a finite reward; ``cost`` is the tokens of the documents probed.
    ``documents_granted`` is how many documents the tokens amount to in the arm's random order. Verdicts: ``opening``,
    ``accepted`` (arm_mean above the threshold), ``refused``, ``probed`` (grants come at the end), ``filled`` (granted
    after the loop, without a probe). NaN or infinite numbers become null in the table.
    """

    round: int
    cluster: int
    probes: int
    excluded: int
    reward: float
    reward_variance: float
    arm_mean: float
    bonus: float
    score: float
    documents_granted: int
    tokens_granted: int
    verdict: str
    cost: int


@dataclass(frozen=True, eq=False)
class BanditResult:
    """The ledger of a run and what it granted.

    ``granted_tokens`` int64 ``[K]`` in the order of ``arms.clusters``; ``probed`` int64 and ``rewards`` float64 are
    the positions measured after the opening and their influence, as measured; ``excluded`` the positions, opening
    included, whose reward was not finite; ``center`` and ``scale`` turn influence into standardised rewards;
    ``posterior`` is what the policy saw, in standardised rewards, for the prior of a later run; ``values`` float64
    ``[K]``, what it ranks the arms by in the end, in the same units, -infinity where nothing is known.
    """

    pulls: list[Pull]
    granted_tokens: np.ndarray
    probed: np.ndarray
    rewards: np.ndarray
    excluded: np.ndarray
    center: float
    scale: float
    posterior: Prior
    values: np.ndarray

    @property
    def rounds(self) -> int:
        """Rounds after the opening."""
        return max((pull.round for pull in self.pulls), default=0)

    @property
    def bonus_ratio(self) -> float:
        """Median of bonus / |mean reward| when arms were chosen: near 0 is greedy, far above 1 is blind."""
        return bonus_ratio([pull for pull in self.pulls if pull.verdict != "opening"])

    def ledger(self) -> pa.Table:
        """Return the pulls as a table with the schema ``LEDGER``."""
        rows = [asdict(pull) for pull in self.pulls]
        columns = {
            field.name: pa.array(
                [None if isinstance(row[field.name], float) and not math.isfinite(row[field.name]) else row[field.name]
                 for row in rows],
                field.type,
            )
            for field in LEDGER
        }  # fmt: skip
        return pa.table(columns, schema=LEDGER)


def bonus_ratio(pulls: list[Pull]) -> float:
    """Return the median of bonus / |mean reward| over pulls; NaN when none has both."""
    ratios = [
        pull.bonus / abs(pull.score - pull.bonus) for pull in pulls if 0 < abs(pull.score - pull.bonus) < math.inf
    ]
    return float(np.median(ratios)) if ratios else math.nan
