"""A preset's choice of documents: measures, arms, bandit and the rule within an arm, as the store's stages run them.

Every choice is cut to the same number of tokens by whoever trains on it; here whole documents are taken until the
budget is passed, so that none is short.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from winnow.errors import UserError
from winnow.identity import seeded_keys
from winnow.lab.measures import Cost, World, fit_measure, values_of
from winnow.presets import Preset, ScoreTerm
from winnow.selection import Arms, BanditSettings, build_arms, check_budget, decide, opening_probes, run_bandit
from winnow.selection.arms import arm_labels
from winnow.selection.bandit import arm_facts
from winnow.selection.budget import sorted_by
from winnow.selection.options import Value
from winnow.selection.policies import policy_class
from winnow.selection.rewards import Term, fit_reward
from winnow.selection.within import make_within

PROBE_SHARE, BLOCK_SHARE = 0.1, 0.04


@dataclass(frozen=True, eq=False)
class Chosen:
    """``positions`` int64 ``[M]`` in training order, a repeated document as often as it is read; ``weights`` float64
    ``[M]`` of their losses; ``ledger``: the bandit's pulls; ``scores`` float64 ``[N]``, NaN where there is none."""

    positions: np.ndarray
    weights: np.ndarray
    scores: np.ndarray
    ledger: pa.Table
    costs: tuple[Cost, ...]

    def tokens(self, lengths: np.ndarray) -> int:
        """Tokens read, end-of-text tokens included."""
        return int(lengths[self.positions].sum())


def choose(world: World, preset: Preset, budget: int) -> Chosen:
    """Choose documents of at least ``budget`` tokens, or all there are.

    Raises :class:`UserError` for an unknown name or option, a preset that needs vectors of a pool without, or a budget
    larger than the pool.
    """
    pool = world.pool
    if preset.needs_vectors and pool.vectors is None:
        raise UserError(f"preset '{preset.name}' needs the documents' vectors and clusters: embed the pool")
    held = int(pool.lengths[world.available].sum())
    check_budget(budget, held)
    if preset.needs_vectors:
        world.costs.append(
            Cost("embed", pool.embedding_flops * world.available.mean(), 0.0, int(world.available.sum()))
        )
    labels, _ = arm_labels(preset.arms, pool.clusters, pool.sources)
    arms = build_arms(pool.doc_ids, labels, pool.lengths, consumed=~world.available)
    scores = _scores(world, preset)
    # One more document than fits the budget, so that cutting to it leaves no preset short.
    wide = min(held, budget + int(pool.lengths[world.available].max()))
    ledger = _pull(world, preset, arms, scores, wide)
    with world.spending("decide", int(world.available.sum())):
        decided = decide(
            arms,
            ledger,
            scores,
            wide,
            world.seed,
            sources=pool.sources.astype(str),
            within=make_within(preset.within, preset.within_options),
            vectors=pool.vectors,
            clusters=None if preset.arms == "clusters" else pool.clusters,
        )
    positions = _training_order(pool.doc_ids, decided.repeats, world.seed)
    weights = decided.weights * _document_weights(world, preset, decided.selected)
    known = np.full(len(pool), np.nan) if scores is None else scores
    return Chosen(positions, weights[positions], known, ledger, tuple(world.costs))


def _scores(world: World, preset: Preset) -> np.ndarray | None:
    """Return the sum of the transformed terms, float64 ``[N]``; None for a preset without terms."""
    if not preset.score:
        return None
    columns = {str(place): values_of(world, term) for place, term in enumerate(preset.score)}
    terms = [Term(str(place), term.transform, term.weight) for place, term in enumerate(preset.score)]
    return np.asarray(fit_reward(terms, columns).of(columns), dtype=np.float64)


def _pull(world: World, preset: Preset, arms: Arms, scores: np.ndarray | None, budget: int) -> pa.Table:
    """Run the bandit and return its ledger."""
    settings = _bandit_settings(preset, budget, int(world.available.sum()), world.seed)
    pool = world.pool
    opening = np.zeros(0, dtype=np.int64)
    measure = _no_measure
    if policy_class(preset.policy).probing:
        opening = opening_probes(arms, settings.probes_per_pull, world.seed)
        measure = _reward(world, preset, scores)
    facts = arm_facts(arms)
    if pool.vectors is not None and preset.arms == "clusters":
        facts = arm_facts(arms, _centroids(pool.vectors, arms))
    rewards = measure(opening) if len(opening) else np.zeros(0)
    with world.spending("bandit", len(opening)):
        return run_bandit(arms, opening, rewards, measure, budget, settings, facts).ledger()


def _no_measure(positions: np.ndarray) -> np.ndarray:
    return np.zeros(len(positions))


def _reward(world: World, preset: Preset, scores: np.ndarray | None) -> Any:
    if preset.reward is not None:
        key = repr((preset.reward.scorer, sorted(preset.reward.options.items())))
        if key in world.measured:  # a score that is known of every document is not measured again
            return lambda positions: world.measured[key][positions]
        return fit_measure(world, preset.reward)
    if scores is None:
        raise UserError(f"preset '{preset.name}': policy '{preset.policy}' probes; name a reward or a score")
    return lambda positions: scores[positions]


def _bandit_settings(preset: Preset, budget: int, candidates: int, seed: int) -> BanditSettings:
    given: dict[str, Any] = dict(preset.bandit)
    probe_share, block_share = (
        float(given.pop(name, usual)) for name, usual in (("probe_share", PROBE_SHARE), ("block_share", BLOCK_SHARE))
    )
    known = {one.name for one in fields(BanditSettings)}
    if wrong := sorted(set(given) - known):
        raise UserError(
            f"preset '{preset.name}', bandit.{wrong[0]}: no such setting; there are {', '.join(sorted(known))}"
        )
    usual_settings: Mapping[str, Value] = {
        "block_tokens": max(1, round(budget * block_share)),
        "max_probes": max(1, round(candidates * probe_share)),
        "arms_per_round": 4,
    }
    return BanditSettings(**{**usual_settings, "policy": preset.policy, "policy_options": preset.policy_options,
                             "seed": seed, **given})  # fmt: skip


def _centroids(vectors: np.ndarray, arms: Arms) -> np.ndarray:
    """Return the unit mean vector of each arm's documents, float32 ``[K, D]``; zeros for an empty one."""
    found = np.zeros((len(arms), vectors.shape[1]))
    for arm in range(len(arms)):
        members = arms.members(arm)
        if len(members):
            found[arm] = vectors[members].astype(np.float64).mean(axis=0)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, norms, out=np.zeros_like(found), where=norms > 0).astype(np.float32)


def _training_order(ids: np.ndarray, repeats: np.ndarray, seed: int) -> np.ndarray:
    """Return the positions to read, each as often as it repeats, in one seeded shuffle of documents and copies."""
    chosen, keys = [], []
    for copy in range(int(repeats.max(initial=0))):
        rows = np.flatnonzero(repeats > copy)
        chosen.append(rows)
        keys.append(seeded_keys(ids[rows], seed, f"order:{copy}"))
    if not chosen:
        return np.zeros(0, dtype=np.int64)
    positions = np.concatenate(chosen)
    return positions[sorted_by(ids[positions], np.concatenate(keys))]


def _document_weights(world: World, preset: Preset, selected: np.ndarray) -> np.ndarray:
    """Return the weight of each document's loss, float64 ``[N]``: 1, or exp(score) of mean 1 over the chosen tokens."""
    weights = np.ones(len(world.pool))
    if preset.weights is None or "scorer" not in preset.weights or not selected.any():
        return weights
    rows = np.flatnonzero(selected)
    term = ScoreTerm(preset.weights["scorer"], preset.weights.get("options", {}))
    values = fit_measure(world, term)(rows)
    values = np.where(np.isfinite(values), values, np.nanmin(values) if np.isfinite(values).any() else 0.0)
    exponential = np.exp(values - values.max())
    tokens = world.pool.lengths[rows]
    weights[rows] = exponential * tokens.sum() / (exponential * tokens).sum()
    return weights
