"""Scheme ``winnow`` is unbiased: collision probability against exact Jaccard, with bounds, for small and large sets."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from winnow.dedup._minhash_kernels import fill_bins
from winnow.dedup.minhash import Sketching, signatures
from winnow.dedup.one_text import hash_text
from winnow.dedup.schemes import scheme
from winnow.dedup.shingles import Shingling

K = 128


def agreements(union: int, shared: int, trials: int, seed: int) -> np.ndarray:
    """Where the signatures of two sets agree, bool ``[trials, K]``; new sets each time, 32 seeds."""
    rng = np.random.default_rng(seed)
    first, second = np.empty(K, np.uint64), np.empty(K, np.uint64)
    draws, out = np.empty(union, np.uint64), np.empty((trials, K), np.bool_)
    middle = shared + (union - shared) // 2
    for trial in range(trials):
        elements = rng.integers(0, 1 << 64, union, dtype=np.uint64)
        mask = scheme("winnow").parameters(K, seed + trial % 32)[0][0]
        fill_bins(elements[:middle].copy(), mask, first, draws)
        fill_bins(np.concatenate([elements[:shared], elements[middle:]]), mask, second, draws)
        out[trial] = first.astype(np.uint32) == second.astype(np.uint32)
    return out


@pytest.mark.parametrize("jaccard", [0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize(("union", "trials"), [(2, 1500), (5, 1500), (20, 1500), (100, 1500), (1000, 600)])
def test_collision_probability_is_jaccard_and_variance_at_most_that_of_minhash(union, trials, jaccard):
    shared = min(max(round(jaccard * union), 1), union - 1)
    expected = shared / union
    agree = agreements(union, shared, trials, seed=union)
    shares = agree.mean(axis=1)
    assert abs(shares.mean() - expected) < 4 * shares.std() / trials**0.5
    # The ratio of variances has a standard error of sqrt(2 / trials): 0.037 or 0.058.
    assert shares.var() < expected * (1 - expected) / K * (1 + 4 * (2 / trials) ** 0.5)
    by_position = agree.mean(axis=0)
    assert np.abs(by_position - expected).max() < 5 * (expected * (1 - expected) / trials) ** 0.5


def test_one_element_fills_every_bin_and_agrees_with_itself_only():
    assert agreements(1, 1, 50, 3).all()
    assert not agreements(2, 0, 50, 4).any()


@pytest.mark.parametrize(("union", "shared"), [(20, 16), (300, 240)])
def test_bands_find_pairs_as_often_as_independent_positions_would(union, shared):
    agree = agreements(union, shared, 3000, seed=9)[:, :126].reshape(3000, 21, 6)
    expected = 1 - (1 - 0.8**6) ** 21
    assert agree.all(axis=2).any(axis=1).mean() > expected - 4 * (expected * (1 - expected) / 3000) ** 0.5
    assert abs(agree.all(axis=2).mean() - 0.8**6) < 0.02


def test_estimates_of_real_pairs_are_unbiased(rows):
    by_id = {row["id"]: row["text"] for row in rows("neardup_versioned_docs", "docs")}
    pairs = rows("neardup_versioned_docs", "pairs")
    left, right = [[by_id[row[side]] for row in pairs[:: len(pairs) // 200]] for side in ("a", "b")]
    sets = [[set(hash_text(text, Shingling()).tolist()) for text in side] for side in (left, right)]
    exact = np.array([len(a & b) / max(1, len(a | b)) for a, b in zip(*sets, strict=True)])
    error = np.zeros(len(exact))
    for seed in range(8):
        (a, _), (b, _) = (signatures(pa.array(side), Sketching(seed=seed), threads=1) for side in (left, right))
        error += ((a == b).mean(axis=1) - exact) / 8
    assert abs(error.mean()) < 4 * (exact * (1 - exact) / K / 8).sum() ** 0.5 / len(exact)
