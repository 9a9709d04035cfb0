"""Selection in the store: the bandit's rounds, and a decision on every document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from winnow.errors import UserError
from winnow.identity import ids_as_keys, ids_to_numpy
from winnow.mixture.weights import Mixture, plan_mixture
from winnow.selection import BanditSettings, Decisions, RandomControl, check_budget, decide, random_control, run_bandit
from winnow.selection.bandit import BanditResult
from winnow.selection.policies import takes_option
from winnow.stages.corpus import corpus_digest
from winnow.stages.estimates import gradient_method
from winnow.stages.influence import candidate_scores, model_name, opening_round
from winnow.stages.loop import Loop
from winnow.stages.pool import budget_tokens
from winnow.stages.probes import Prober
from winnow.store.store import Store

SELECTION_VERSION = "1"


def selection_key(store: Store, loop: Loop) -> str:
    """Return the key of a selection; its first characters name it in ``bandit_rounds`` and ``decisions``."""
    return loop.key(
        "selection",
        SELECTION_VERSION,
        "selection",
        "mixture",
        corpus=corpus_digest(store),
        verdicts=loop.pool.verdicts,
        influence_model=model_name(store, loop),
    )


def selection_name(store: Store, loop: Loop) -> str:
    return selection_key(store, loop)[:12]


def pull_arms(store: Store, loop: Loop, prober: Prober) -> BanditResult:
    """Run the bandit from the stored opening round to the token budget, measuring new probes by gradient influence."""
    settings = loop.config.selection
    budget = budget_tokens(loop.config, loop.pool)
    check_budget(budget, loop.pool.tokens)
    arms = loop.arms()
    opening, rewards = _opening(store, loop)
    return run_bandit(
        arms,
        opening,
        rewards,
        lambda positions: prober.gradient(arms.doc_ids[positions], "bandit"),
        budget,
        BanditSettings(
            block_tokens=max(1, round(budget * settings.block_share)),
            max_probes=settings.max_probes,
            policy=settings.policy,
            policy_options={"alpha": settings.alpha} if takes_option(settings.policy, "alpha") else {},
            arms_per_round=settings.arms_per_round,
            probes_per_pull=settings.probes_per_pull,
            accept_threshold=settings.accept_threshold,
            seed=settings.seed,
        ),
    )


def _opening(store: Store, loop: Loop) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and influence of the opening probes that are still candidates."""
    rows = opening_round(store, loop, gradient_method(loop.config, loop.checkpoint))
    pool, probed = ids_as_keys(loop.pool.ids), ids_as_keys(ids_to_numpy(rows["doc_id"]))
    where = np.minimum(np.searchsorted(pool, probed), max(len(pool) - 1, 0))
    present = pool[where] == probed if len(pool) else np.zeros(len(probed), bool)
    return where[present], rows["influence"].to_numpy()[present]


@dataclass(frozen=True)
class Selected:
    """Decisions on the candidates, the random control beside them, and the mixture they were held to."""

    loop: Loop
    decisions: Decisions
    control: RandomControl
    mixture: Mixture
    budget: int
    influence_model_used: bool

    def decision_rows(self, name: str) -> pa.Table:
        """Return the ``decisions`` rows of every document: those of the candidates and of the rejected before."""
        found = self.decisions.table()
        chosen = self.loop.pool.candidates
        candidates = pa.table(
            {
                "doc_id": found["doc_id"],
                "stage": pa.array(["selection"] * len(found), pa.string()),
                "verdict": found["verdict"].cast(pa.string()),
                "reason": found["word"].cast(pa.string()),
                "detail": found["reason"],
                "matched_doc": pa.nulls(len(found), pa.uuid()),
                "cluster": chosen["cluster"].cast(pa.int32()),
                "score": found["score"],
                "in_control": pa.array(self.control.selected),
            }
        )
        early = self.loop.pool.documents.filter(pc.is_valid(self.loop.pool.documents["stage"]))
        rejected = pa.table(
            {
                **{column: early[column] for column in ("doc_id", "stage", "reason", "detail", "matched_doc")},
                "verdict": pa.array(["rejected"] * len(early), pa.string()),
                "cluster": early["cluster"].cast(pa.int32()),
                "score": pa.nulls(len(early), pa.float64()),
                "in_control": pa.array([False] * len(early), pa.bool_()),
            }
        )
        rows = pa.concat_tables([candidates, rejected.select(candidates.column_names)])
        return rows.append_column("selection", pa.array([name] * len(rows), pa.string()))

    def mixture_rows(self, name: str) -> pa.Table:
        """Return the ``mixtures`` rows: what came out, beside the natural and the temperature weights of the pool."""
        candidates = self.loop.pool.candidates
        available = _tokens_by_source(candidates["source"], candidates["tokens"])
        trained_on = pa.array(self.decisions.arms.tokens * self.decisions.repeats)
        got = dict.fromkeys(available, 0) | _tokens_by_source(candidates["source"], trained_on)
        total = max(sum(got.values()), 1)
        came_out = Mixture("selected", {source: count / total for source, count in got.items()}, got, available)
        plans = [
            came_out,
            plan_mixture(available, self.budget, "natural"),
            plan_mixture(available, self.budget, "temperature"),
        ]
        return pa.concat_tables([plan.table(name) for plan in plans])

    def manifest_rows(self) -> pa.Table:
        """Return the manifest's rows in training order."""
        positions = self.decisions.positions
        candidates = self.loop.pool.candidates.take(pa.array(positions))
        return pa.table(
            {
                "order": np.arange(len(positions)),
                "doc_id": candidates["doc_id"],
                "uri": candidates["shard"],
                "row": candidates["row"],
                "source": candidates["source"],
                "tokens": candidates["tokens"],
                "repeats": self.decisions.repeats[positions].astype(np.int32),
                "reason": self.decisions.told(positions),
            }
        )


def select(store: Store, loop: Loop, ledger: pa.Table) -> Selected:
    """Choose documents inside the granted clusters, and the equal-budget random selection beside them."""
    budget = budget_tokens(loop.config, loop.pool)
    granted = sum(tokens or 0 for tokens in ledger["tokens_granted"].to_pylist())
    if granted != min(budget, loop.pool.tokens):
        raise UserError(
            f"the bandit's rounds grant {granted:,} of {min(budget, loop.pool.tokens):,} tokens: the corpus or the "
            "configuration changed after they were pulled; run again from bandit_rounds"
        )
    settings, mixture = loop.config.selection, loop.config.mixture
    available = _tokens_by_source(loop.pool.candidates["source"], loop.pool.candidates["tokens"])
    bound = mixture.method != "selected"
    plan = plan_mixture(
        available, budget, mixture.method if bound else "natural", **(mixture.parameters if bound else {})
    )
    sources = loop.pool.candidates["source"].to_numpy() if bound else None
    quotas: Mapping[str, int] | None = plan.tokens if bound else None
    scores = candidate_scores(store, loop)
    arms = loop.arms()
    decisions = decide(arms, ledger, scores, budget, settings.seed, sources, quotas)
    control = random_control(arms.doc_ids, arms.tokens, budget, settings.seed, sources, quotas)
    return Selected(loop, decisions, control, plan, budget, scores is not None)


def stored_ledger(store: Store, name: str) -> pa.Table:
    """Return the bandit's pulls of a selection, in order."""
    return store.arrow("SELECT * FROM bandit_rounds WHERE selection = $name ORDER BY pull", {"name": name})


def ledger_rows(result: BanditResult, name: str, clustering: str) -> pa.Table:
    """Return the ``bandit_rounds`` rows of a run."""
    rows = result.ledger()
    return (
        rows.append_column("selection", pa.array([name] * len(rows), pa.string()))
        .append_column("clustering", pa.array([clustering] * len(rows), pa.string()))
        .append_column("pull", pa.array(np.arange(len(rows))))
    )


def _tokens_by_source(sources: pa.ChunkedArray, tokens: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """Return the tokens of each source, in the order in which the sources occur."""
    rows = pa.table({"source": sources, "tokens": tokens})
    sums = rows.group_by("source", use_threads=False).aggregate([("tokens", "sum")])
    return dict(zip(sums["source"].to_pylist(), sums["tokens_sum"].to_pylist(), strict=True))
